"""The deployed forms of the same walk: a DICOM node and a watch folder, on one spool."""
