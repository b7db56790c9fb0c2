//! `POST api/search/aql`: limits, refusals and permissions around the evaluation of a query.
//!
//! Source: `reference/registries.md` A2 (AQL: answer, limits, virtual keys). *Invariant:*
//! permission filtering comes after `limit`, as in Artifactory.

use std::fmt::Write as _;
use std::sync::atomic::Ordering;

use serde_json::json;

use super::State;
use super::aql::{Comparison, Criterion, Field, Order, Query};
use super::aql_rows::{compare, matching};
use super::aql_text::{item_fields, write_row};
use super::auth::User;
use super::message::Response;
use super::repositories::{Class, Source};
use super::storage::join;

impl State {
    /// `POST api/search/aql`.
    pub(crate) fn answer_aql(&self, text: &str, user: &User) -> Response {
        let running = self.aql_running.fetch_add(1, Ordering::SeqCst) + 1;
        let response = self.aql(text, user, running);
        self.aql_running.fetch_sub(1, Ordering::SeqCst);
        response
    }

    fn aql(&self, text: &str, user: &User, running: u64) -> Response {
        let pause = self.switches().pause("aql_delay_ms");
        std::thread::sleep(pause);
        let switches = self.switches();
        let at_once = switches.number("aql_concurrency");
        let refused = switches.status("aql");
        if refused.is_some() || (at_once > 0 && running > at_once) {
            let response = match refused.unwrap_or(429) {
                400 => Response::status_error(400, "Failed to parse query"),
                403 => Response::status_error(403, "Forbidden"),
                408 => Response::status_error(408, "AQL query timed out"),
                429 => Response::status_error(429, "Too many concurrent AQL queries"),
                status => Response::status_error(status, "Internal Server Error"),
            };
            return match switches.text("aql_retry_after") {
                "" => response,
                seconds => response.header("Retry-After", seconds),
            };
        }
        if text.len() as u64 > switches.number("aql_max_chars") {
            return Response::status_error(400, "AQL query is too long");
        }
        let query = match Query::parse(text).and_then(|query| self.check_query(query, user)) {
            Ok(query) => query,
            Err(message) => return Response::status_error(400, &message),
        };
        drop(switches);
        self.run_query(query, user)
    }

    fn check_query(&self, query: Query, user: &User) -> Result<Query, String> {
        let primary = query.include.iter().all(|field| {
            !field.starts_with("property") && !field.starts_with("stat") && !field.starts_with('@')
        });
        let pages = query.has_sort || query.offset > 0 || query.limit.is_some();
        if query.has_sort && self.switches().on("aql_oss") {
            return Err("Sorting is not supported by AQL in the open source version".to_owned());
        }
        if pages && !primary {
            return Err(
                "Sort, offset and limit are only supported in the primary domain".to_owned(),
            );
        }
        let fields = item_fields(&query.include)?;
        let has = |name: &str| fields.iter().any(|field| field == name);
        let complete = has("repo") && has("path") && has("name");
        if !user.admin && !complete {
            return Err(
                "For permissions reasons AQL demands the following fields: repo, path and name."
                    .to_owned(),
            );
        }
        Ok(query)
    }

    fn run_query(&self, mut query: Query, user: &User) -> Response {
        self.expand_virtual(&mut query.criterion);
        let (hard_limit, reversed, empty) = {
            let switches = self.switches();
            let all = switches.number("aql_row_limit");
            let limit = if user.admin {
                all
            } else {
                all.min(switches.number("aql_user_limit"))
            };
            let limit = usize::try_from(limit).unwrap_or(usize::MAX);
            (
                limit,
                switches.is("aql_order", "reversed"),
                switches.is("aql", "empty"),
            )
        };
        let limit = query.limit.unwrap_or(usize::MAX).min(hard_limit);
        let storage = self.storage();
        let mut rows = if empty {
            Vec::new()
        } else {
            matching(&storage, &query.criterion)
        };
        if reversed {
            rows.reverse();
        }
        if query.has_sort {
            rows.sort_by(|left, right| {
                let order = query.sort.iter().map(|field| compare(*field, left, right));
                let order = order.fold(std::cmp::Ordering::Equal, std::cmp::Ordering::then);
                if query.descending {
                    order.reverse()
                } else {
                    order
                }
            });
        }
        let cut = rows.len().saturating_sub(query.offset) > hard_limit && limit == hard_limit;
        let fields = item_fields(&query.include).unwrap_or_default();
        let mut out = String::with_capacity(rows.len().min(limit) * 300 + 200);
        out.push_str("{\n\"results\" : [ ");
        let mut written = 0;
        for row in rows.iter().skip(query.offset).take(limit) {
            if !user.readable.is_empty()
                && !user.may_read(&format!("{}/{}", row.repo, join(row.path, row.name)))
            {
                continue;
            }
            if written > 0 {
                out.push(',');
            }
            write_row(&mut out, row, &fields, &query.include);
            written += 1;
        }
        let mut range = json!({
            "start_pos": query.offset,
            "end_pos": written,
            "total": written,
            "limit": limit,
        });
        if cut {
            range["notification"] =
                json!("AQL query reached the search hard limit, results are trimmed.");
        }
        let _ = write!(out, " ],\n\"range\" : {range}\n}}\n");
        Response::new(200).body("application/json", out.into_bytes())
    }

    /// Replaces virtual keys in conditions on `repo` by what the switch says they mean.
    fn expand_virtual(&self, criterion: &mut Criterion) {
        let expanded = match criterion {
            Criterion::All(list) | Criterion::Any(list) | Criterion::SameProperty(list) => {
                for inner in list {
                    self.expand_virtual(inner);
                }
                return;
            }
            Criterion::Field(Field::Repo, Comparison::Text(Order::Equal, key)) => {
                match self.repository(key).map(|repository| &repository.class) {
                    Some(Class::Virtual { .. }) => self.aql_members(key),
                    // A remote's own key owns nothing; only its cache does.
                    _ => return,
                }
            }
            _ => return,
        };
        let keys = expanded.into_iter();
        let conditions =
            keys.map(|key| Criterion::Field(Field::Repo, Comparison::Text(Order::Equal, key)));
        *criterion = Criterion::Any(conditions.collect());
    }

    fn aql_members(&self, key: &str) -> Vec<String> {
        let switches = self.switches();
        let meaning = switches.text("aql_virtual");
        let sources = self.sources(key).into_iter();
        let kept = sources.filter(|source| match meaning {
            "none" => false,
            "local" => matches!(source, Source::Stored(_)),
            _ => true,
        });
        kept.map(|source| source.owner()).collect()
    }
}
