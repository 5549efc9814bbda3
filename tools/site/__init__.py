"""What the build of the documentation's site adds to the pages of docs/."""
