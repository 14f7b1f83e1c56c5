"""The published paths of the step's first version. Everything lives in `tracemind_otel`."""
