"""What `check` looks at, point by point: loading, features, behaviour, and costs."""
