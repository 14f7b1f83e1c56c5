"""What leaves the process: telemetry encoded as OTLP, kept as bytes, and sent.

Nothing here imports the SDK or an exporter when it is loaded; their objects are read by their attributes.
"""
