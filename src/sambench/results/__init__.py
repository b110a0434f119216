"""From result files to what people read: schemas, tables, statistics, figures, report, MLflow."""
