#!/bin/sh
# Run once, by the image, before the first start: the user of Grafana, who reads and may say how long. Rows of other tenants are
# left out before FINAL and not behind it.
set -eu
clickhouse-client --user "$CLICKHOUSE_USER" --password "$CLICKHOUSE_PASSWORD" --multiquery --query "
  CREATE USER IF NOT EXISTS grafana IDENTIFIED WITH sha256_password BY '$CLICKHOUSE_READER_PASSWORD'
    SETTINGS readonly = 2, optimize_move_to_prewhere_if_final = 1;
  GRANT SELECT, dictGet ON tallylight.* TO grafana;
  GRANT SELECT ON system.parts TO grafana;"
