"""Images and instances: from any COCO-format file, or generated."""
