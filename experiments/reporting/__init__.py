"""From result files to a report: tables, pictures, one HTML page."""
