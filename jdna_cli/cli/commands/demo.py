"""`jdna demo`: the main job in miniature."""

from __future__ import annotations

from jdna_cli.cli.opening import open_workspace, url_of
from jdna_cli.cli.options import common


def demo(
    home: common.Home = common.DEFAULT_HOME,
    db: common.Db = None,
    as_json: common.Json = False,
) -> None:
    """Try it: ten small cells on an embedded model and two generated tasks, then the report."""
    from jdna_cli.cli import demonstration

    with open_workspace(home, db) as workspace:
        demonstration.run(workspace, url_of(home, db), db, as_json)
