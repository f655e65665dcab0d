"""What differs between two trees or two runs, and what one run removed."""
