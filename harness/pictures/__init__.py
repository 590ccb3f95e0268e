"""Photographs and single persons, drawn with what a network made of them."""
