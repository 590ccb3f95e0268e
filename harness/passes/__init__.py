"""Images -> network -> poses in a stored pass -> any choice of select knobs, and its score."""
