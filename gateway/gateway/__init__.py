"""The one public door: HTTP and JSON outside, typed gRPC calls inside."""
