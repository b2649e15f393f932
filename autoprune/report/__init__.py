"""What a finished run looks like to its reader: an HTML page and the same facts as Markdown."""
