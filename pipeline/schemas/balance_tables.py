"""Tables of the two balances."""

import pyarrow as pa

from pipeline.schemas.columns import column, extend
from pipeline.schemas.pair_tables import CAPTIONS

BALANCED = extend(
    CAPTIONS,
    column(
        "selected_by",
        pa.list_(pa.int32()),
        "queries that chose the pair under their cap, ascending, never empty",
    ),
)

CAP = pa.schema(
    [
        column("cap", pa.int64(), "pairs that a query may keep in the end"),
        column(
            "first_cap",
            pa.int64(),
            "pairs that it may keep at balance: cap times headroom, rounded up",
        ),
        column(
            "tail_share",
            pa.float64(),
            "share of the matches for which the cap was chosen; null where it was given",
            nullable=True,
        ),
        column("seed", pa.int64(), "of the priorities"),
    ]
)

QUERY_COUNTS = pa.schema(
    [
        column("query_id", pa.int32(), "id into QUERIES"),
        column("matched", pa.int64(), "pairs whose caption contains the query"),
        column(
            "selected",
            pa.int64(),
            "pairs that the query chose: at most cap times headroom at balance, at most cap at rebalance",
        ),
        column(
            "present",
            pa.int64(),
            "kept pairs whose caption contains the query, whichever query chose them",
        ),
        column(
            "threshold",
            pa.uint64(),
            "largest priority selected; null where all were",
            nullable=True,
        ),
    ]
)

BALANCE_SUMMARY = pa.schema(
    [
        column("cap", pa.int64(), "pairs that a query may keep at this stage"),
        column("pairs", pa.int64(), "different pairs to choose from, of all crawls added"),
        column("kept", pa.int64(), "pairs kept"),
        column("queries", pa.int64(), "queries of the list"),
        column("queries_unmatched", pa.int64(), "queries without a match"),
        column("queries_over_cap", pa.int64(), "queries with more matches than the cap"),
        column("matches", pa.int64(), "matches of all queries"),
        column("matches_over_cap", pa.int64(), "matches of the queries over the cap"),
        column(
            "tail_share",
            pa.float64(),
            "share of the matches that queries at or under the cap hold",
            nullable=True,
        ),
        column("matches_per_pair", pa.float64(), "matches / pairs", nullable=True),
        column("selected", pa.int64(), "selections, summed over queries"),
        column("present", pa.int64(), "matches that are left in the kept pairs"),
        column(
            "queries_short",
            pa.int64(),
            "queries whose headroom ran out: cap matches or more at balance, fewer than cap pairs now; "
            "null at balance",
            nullable=True,
        ),
    ]
)

QUERY_DISTRIBUTION = pa.schema(
    [
        column("measure", pa.string(), "matched, selected or present, as in QUERY_COUNTS"),
        column("count", pa.int64(), "pairs of a query"),
        column("queries", pa.int64(), "queries with so many"),
        column("queries_up_to", pa.int64(), "queries with so many or fewer"),
        column("pairs_up_to", pa.int64(), "pairs of these queries, summed over them"),
    ]
)
