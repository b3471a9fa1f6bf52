"""Serve scans as a DICOM node (`service.Node`) or from a folder (`watch.WatchFolder`), through one spool."""
