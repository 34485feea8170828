"""What a person says of the regions where two masks differ, kept on disk after every word."""
