"""What a backbone costs on the device that runs it: shown, and compared on equal devices only."""
