"""What the recipes share: data, runs, tables and pictures. No recipe imports another."""
