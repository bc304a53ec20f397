"""What keeps a pretrained parser from being spoilt while another task trains it."""
