"""What simulators are used for: influence, wrong labels, choosing data, and checking all of it by real training."""
