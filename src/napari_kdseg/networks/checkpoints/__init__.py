"""Networks kept in files: read whatever wrote them, matched to a network, or refused with the reason."""
