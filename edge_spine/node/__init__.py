"""Serve scans as a DICOM node or from a folder; the door is `service.Node`, and `watch.WatchFolder` for folders."""
