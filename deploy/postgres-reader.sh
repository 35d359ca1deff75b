#!/bin/sh
# Run once, by the image, before the first start: the role of readers. What it may see is granted by the collector.
set -eu
psql --username "$POSTGRES_USER" --dbname "$POSTGRES_DB" --set ON_ERROR_STOP=1 --set password="$POSTGRES_READER_PASSWORD" <<'SQL'
create role tallylight_read login password :'password';
SQL
