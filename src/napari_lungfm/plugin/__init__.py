"""npe2 callables: reader, writer, sample data; free of Qt."""
