"""fairseq plugins of diffdecode: pass this folder to ``--user-dir``."""
