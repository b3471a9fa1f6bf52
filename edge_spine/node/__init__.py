"""A DICOM node and a watch folder on one spool; the door is `service.Node`, and `watch.WatchFolder` for folders."""
