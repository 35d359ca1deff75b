-- Boards and alerts ask what was spent in the last hours and days. Bookings come in the order of their time and are never
-- changed, so a few bytes per stretch of pages find them: an hour among months is read alone.
create index quota_booking_at on quota_bookings using brin (at) with (pages_per_range = 32, autosummarize = on);
