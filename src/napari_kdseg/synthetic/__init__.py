"""An H&E-like slide of any size, computed where it is looked at, with exact masks."""
