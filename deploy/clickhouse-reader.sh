#!/bin/sh
# Run once, by the image, before the first start: the user of Grafana, who reads and may say how long.
set -eu
clickhouse-client --user "$CLICKHOUSE_USER" --password "$CLICKHOUSE_PASSWORD" --multiquery --query "
  CREATE USER IF NOT EXISTS grafana IDENTIFIED WITH sha256_password BY '$CLICKHOUSE_READER_PASSWORD' SETTINGS readonly = 2;
  GRANT SELECT, dictGet ON tallylight.* TO grafana;
  GRANT SELECT ON system.parts TO grafana;"
