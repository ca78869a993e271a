"""What travels between the layers: records, faults, dates, ids and texts."""
