//! The list of all switches: name, value at the start, what the values mean.
//!
//! The meaning is also the rule: a value is allowed when it stands in it as a word, see
//! [`super::switches`]. A default of digits makes a number, `on` and `off` a yes or no.

/// Every switch: name, value at start, meaning.
pub(crate) const TABLE: &[(&str, &str, &str)] = &[
    // The server as a whole.
    (
        "version",
        "7.161.20",
        "version in X-JFrog-Version and system/version",
    ),
    (
        "suspended",
        "off",
        "off, on (302 to landing.jfrog.com) or a URL to redirect everything to",
    ),
    (
        "login_page",
        "off",
        "on: every answer is an HTML login page with status 200",
    ),
    ("fault_every", "0", "one in N requests fails (0: none)"),
    (
        "fault_seed",
        "0",
        "0: fault_every is exactly every Nth request; else which ones fail is drawn from this seed",
    ),
    (
        "fault_status",
        "503",
        "status of a failing request, or `cut`: connection closed",
    ),
    ("fault_retry_after", "", "Retry-After of a failing request"),
    (
        "fault_path",
        "",
        "only requests whose target contains this text can fail",
    ),
    ("fault_times", "0", "stop after so many failures (0: never)"),
    (
        "fault_429",
        "0",
        "per mille of requests answered 429, half of them with Retry-After",
    ),
    ("fault_5xx", "0", "per mille answered 500, 502, 503 or 504"),
    (
        "fault_cut",
        "0",
        "per mille whose body ends in the middle with the connection",
    ),
    (
        "fault_wrong",
        "0",
        "per mille of manifests, blobs and files with one byte changed",
    ),
    (
        "fault_slow",
        "0",
        "per mille whose body trickles for half a second",
    ),
    (
        "fault_loop_link",
        "0",
        "per mille of tag lists and catalogs whose Link names the page itself",
    ),
    (
        "fault_login",
        "0",
        "per mille answered with a login page and status 200",
    ),
    (
        "fault_expired",
        "0",
        "per mille of blobs and files redirected to a signed URL that has expired",
    ),
    ("delay_ms", "0", "wait before every answer"),
    // Authentication.
    (
        "anonymous",
        "off",
        "on: reading without credentials is allowed",
    ),
    (
        "challenge",
        "bearer",
        "bearer or basic: what an anonymous registry request is answered",
    ),
    (
        "scope",
        "with-key",
        "with-key, without-key, none, none-on-head: scope of the bearer challenge",
    ),
    (
        "token",
        "ok",
        "ok, rejected (a valid token still gets 401), refused (token endpoint 401)",
    ),
    (
        "token_expires",
        "9000",
        "seconds a token lives and announces",
    ),
    (
        "token_expires_sent",
        "on",
        "off: the answer has no expires_in",
    ),
    (
        "token_post",
        "off",
        "on: the token endpoint takes the OAuth form by POST, else 404",
    ),
    (
        "token_error",
        "new",
        "new or old (6.23.1): error body of the token endpoint",
    ),
    (
        "lock_after",
        "0",
        "failed logins after which a user gets 403 (0: never)",
    ),
    // Listing by the registry protocol.
    (
        "link",
        "live",
        "live (as 7.161), correct, no-key, numeric, absent, loop, foreign, absolute",
    ),
    (
        "page_max",
        "0",
        "entries per page when `n` is absent or larger (0: no cap)",
    ),
    (
        "page_refuse_over",
        "0",
        "`n` above this is 400 PAGINATION_NUMBER_INVALID (0: never)",
    ),
    (
        "catalog",
        "ok",
        "ok, or a status such as 403 to refuse with",
    ),
    (
        "remote_catalog",
        "empty",
        "empty or cached: catalog of a remote",
    ),
    (
        "remote_catalog_delay_ms",
        "0",
        "wait before the catalog of a remote (3000 in the wild)",
    ),
    (
        "tags",
        "ok",
        "ok, null (`tags: null`), or a status to refuse with",
    ),
    // Reading manifests and blobs.
    (
        "schema1",
        "on",
        "on: a request without Accept gets a converted schema1 manifest",
    ),
    ("digest_header", "on", "off: no Docker-Content-Digest"),
    (
        "registry_header",
        "cache",
        "cache or key: what X-Artifactory-Docker-Registry says for a remote",
    ),
    (
        "missing",
        "404",
        "404 or 403: status of an absent manifest or blob",
    ),
    ("referrers", "on", "off: 404 as before 7.90.1"),
    (
        "head_counts",
        "off",
        "on: HEAD counts as a download (UNCONFIRMED either way)",
    ),
    (
        "v2_skip_stats",
        "off",
        "on: /v2/ honours skipUpdateStats (UNCONFIRMED either way)",
    ),
    ("range", "on", "off: Range is ignored, 200 with everything"),
    (
        "redirect",
        "off",
        "off, blobs, all (also files by path): 302 to the blob host",
    ),
    ("redirect_expires_ms", "60000", "life of a signed URL"),
    (
        "cut_blob",
        "0",
        "close the connection after N bytes of a blob (0: never)",
    ),
    (
        "short_blob",
        "0",
        "announce and send only N bytes of a blob (0: all)",
    ),
    (
        "blob_fault_times",
        "0",
        "stop cutting and shortening after so many (0: never)",
    ),
    ("wrong_blob", "off", "on: one byte of every blob is changed"),
    (
        "wrong_manifest",
        "off",
        "on: one byte of every manifest is changed",
    ),
    ("slow_bytes", "0", "bytes sent per 10 ms (0: full speed)"),
    (
        "remote_status",
        "0",
        "status a remote gets from its upstream (429: Docker Hub's limit)",
    ),
    (
        "marker_files",
        "on",
        "on: layers a cache has not fetched yet are shown as `.marker`",
    ),
    (
        "promote_keeps_modified",
        "on",
        "off: a copy gets a new `modified` (UNCONFIRMED either way)",
    ),
    // REST.
    (
        "repositories",
        "ok",
        "ok, or a status such as 403 to refuse with",
    ),
    ("storage", "ok", "ok, or a status to refuse with"),
    (
        "aql",
        "ok",
        "ok, empty, or a status: 400, 403, 408, 429, 500",
    ),
    ("aql_retry_after", "", "Retry-After of a refused AQL query"),
    ("aql_oss", "off", "on: sorting is refused with 400"),
    (
        "aql_row_limit",
        "500000",
        "rows per answer; permission filtering comes after",
    ),
    (
        "aql_user_limit",
        "1000",
        "the same for users that are not administrators",
    ),
    ("aql_max_chars", "6000", "longer queries are 400"),
    (
        "aql_virtual",
        "members",
        "members, local (local members only), none: meaning of a virtual key",
    ),
    (
        "aql_order",
        "natural",
        "natural or reversed: row order without sort",
    ),
    (
        "aql_concurrency",
        "0",
        "more queries at a time get 429 (0: no limit)",
    ),
    ("aql_delay_ms", "0", "time every query takes"),
    // Webhooks.
    (
        "webhook_sign",
        "new",
        "new (hex HMAC-SHA256) or sha1 (sha1= and hex HMAC-SHA1, obsolete)",
    ),
    (
        "webhook_form",
        "nested",
        "nested or flat (oldest: data and event_type at the top, no domain)",
    ),
    (
        "webhook_image_name",
        "last",
        "last (segment of the path, as live) or full (as documented)",
    ),
    ("webhook_origin", "on", "off: no jpd_origin, as self-hosted"),
    (
        "webhook_user_context",
        "on",
        "off: no userContext, as before it came",
    ),
    (
        "webhook_order",
        "children-first",
        "children-first, tag-first, shuffled: events of a list (UNCONFIRMED)",
    ),
    (
        "webhook_deleted_sha256",
        "on",
        "off: sha256 and size of a deletion are empty (UNCONFIRMED either way)",
    ),
    (
        "webhook_remote_pushed",
        "off",
        "on: pulling through a remote is a push too (UNCONFIRMED either way)",
    ),
    (
        "webhook_duplicates",
        "0",
        "every event is sent so many times more",
    ),
    (
        "webhook_retry_wait_ms",
        "10000",
        "wait between the five tries of a delivery",
    ),
    (
        "webhook_timeout_ms",
        "30000",
        "time for one try of a delivery with redirects and answer",
    ),
    (
        "webhook_strict_urls",
        "off",
        "on: URLs of private addresses are refused, as the server does at first",
    ),
];
