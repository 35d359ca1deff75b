-- A settlement writes the row of its reservation anew, about 1 kB. Where the page has room for it, no index is touched: with
-- 70 % only two of a page's five rows found some, and the other three wrote two index entries each, left two dead ones, and
-- logged 600 bytes more. Holds for pages made from now on; costs a table two thirds larger.
alter table quota_reservation_rows set (fillfactor = 45);
