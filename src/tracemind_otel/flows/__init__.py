"""What surrounds model calls: sums, correlation and budgets. No OpenTelemetry."""
