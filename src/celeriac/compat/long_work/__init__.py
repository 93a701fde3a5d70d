"""Long work: progress that can be read from anywhere, a cursor that survives crashes, and cancellation that reaches a running task."""
