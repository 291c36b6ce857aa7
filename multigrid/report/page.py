from multigrid.report.record import RunRecord


def write_page(record: RunRecord) -> None: ...
