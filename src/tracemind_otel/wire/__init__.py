"""Model calls that other SDKs make, read from the wire."""
