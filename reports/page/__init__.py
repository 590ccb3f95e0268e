"""The interactive page: one self-contained HTML file that opens without a network."""

from reports.page.build import build_page, page_data
from reports.page.content import Picture

__all__ = ["Picture", "build_page", "page_data"]
