//! The Artifactory query language: from the text of a query to a [`Query`].
//!
//! Source: `reference/registries.md` A2 (AQL). Only the `items` domain. Times are milliseconds
//! UTC. Errors are the text of a 400. *Invariant:* nothing is looked up here; a query means the
//! same for every server.

use wildmatch::WildMatch;

use super::aql_json::{Json, strings};
use super::time;

/// What an item can be asked about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Field {
    Repo,
    Path,
    Name,
    Type,
    Created,
    Modified,
    Updated,
    CreatedBy,
    ModifiedBy,
    Size,
    Depth,
    ActualSha1,
    ActualMd5,
    Sha256,
    VirtualRepos,
    Downloads,
    Downloaded,
    DownloadedBy,
    /// Statistics of a remote's own clients, which the emulator never has.
    RemoteDownloads,
    PropertyKey,
    PropertyValue,
}

impl Field {
    pub(crate) fn parse(name: &str) -> Result<Field, String> {
        let name = name.strip_prefix("item.").unwrap_or(name);
        Ok(match name {
            "repo" => Field::Repo,
            "path" => Field::Path,
            "name" => Field::Name,
            "type" => Field::Type,
            "created" => Field::Created,
            "modified" => Field::Modified,
            "updated" => Field::Updated,
            "created_by" => Field::CreatedBy,
            "modified_by" => Field::ModifiedBy,
            "size" => Field::Size,
            "depth" => Field::Depth,
            "actual_sha1" | "original_sha1" => Field::ActualSha1,
            "actual_md5" | "original_md5" => Field::ActualMd5,
            "sha256" => Field::Sha256,
            "virtual_repos" => Field::VirtualRepos,
            "stat.downloads" => Field::Downloads,
            "stat.downloaded" => Field::Downloaded,
            "stat.downloaded_by" => Field::DownloadedBy,
            "stat.remote_downloads" | "stat.remote_downloaded" => Field::RemoteDownloads,
            "property.key" => Field::PropertyKey,
            "property.value" => Field::PropertyValue,
            _ => return Err(format!("Failed to parse query: unknown field '{name}'")),
        })
    }

    fn is_time(self) -> bool {
        matches!(
            self,
            Field::Created | Field::Modified | Field::Updated | Field::Downloaded
        )
    }

    /// True for fields that are compared as numbers.
    pub(crate) fn is_number(self) -> bool {
        self.is_time() || matches!(self, Field::Size | Field::Depth | Field::Downloads)
    }
}

/// How a field is compared.
#[derive(Debug)]
pub(crate) enum Comparison {
    Text(Order, String),
    Number(Order, i64),
    Match(WildMatch),
    NoMatch(WildMatch),
    /// `$eq` or `$ne` with `null`.
    Null(Order),
}

/// Which results of a comparison count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Order {
    Equal,
    NotEqual,
    Greater,
    GreaterEqual,
    Less,
    LessEqual,
}

impl Order {
    pub(crate) fn holds<T: Ord + ?Sized>(self, left: &T, right: &T) -> bool {
        match self {
            Order::Equal => left == right,
            Order::NotEqual => left != right,
            Order::Greater => left > right,
            Order::GreaterEqual => left >= right,
            Order::Less => left < right,
            Order::LessEqual => left <= right,
        }
    }
}

/// A condition on an item.
#[derive(Debug)]
pub(crate) enum Criterion {
    All(Vec<Criterion>),
    Any(Vec<Criterion>),
    /// All conditions on one and the same property.
    SameProperty(Vec<Criterion>),
    Field(Field, Comparison),
    /// `@key`; the key may have wildcards.
    Property(WildMatch, Comparison),
}

/// A whole query.
#[derive(Debug)]
pub(crate) struct Query {
    pub(crate) criterion: Criterion,
    /// As given, without quotes.
    pub(crate) include: Vec<String>,
    pub(crate) descending: bool,
    pub(crate) sort: Vec<Field>,
    pub(crate) has_sort: bool,
    pub(crate) offset: usize,
    pub(crate) limit: Option<usize>,
}

impl Query {
    /// Reads `items.find(...)` and what follows it.
    pub(crate) fn parse(text: &str) -> Result<Query, String> {
        let text = text.trim();
        let mut rest = text
            .strip_prefix("items.find")
            .ok_or_else(|| format!("Failed to parse query: {text}, it looks like there is syntax error near the following sub-query: {text}"))?;
        let (arguments, after) = parenthesized(rest)?;
        rest = after;
        let criterion = criteria(parse_list(arguments)?)?;
        let mut query = Query {
            criterion,
            include: Vec::new(),
            descending: false,
            sort: Vec::new(),
            has_sort: false,
            offset: 0,
            limit: None,
        };
        // The order of the parts is fixed.
        let mut stage = 0;
        while !rest.trim().is_empty() {
            let part = rest.trim_start();
            let end = part.find('(').ok_or_else(|| syntax(part))?;
            let (arguments, after) = parenthesized(&part[end..])?;
            rest = after;
            let position = match part[..end].trim() {
                ".include" => {
                    query.include = strings(&parse_list(arguments)?);
                    1
                }
                ".sort" => {
                    query.read_sort(&parse_list(arguments)?)?;
                    2
                }
                ".offset" => {
                    query.offset = arguments.trim().parse().map_err(|_| syntax(part))?;
                    3
                }
                ".limit" => {
                    query.limit = Some(arguments.trim().parse().map_err(|_| syntax(part))?);
                    4
                }
                _ => return Err(syntax(part)),
            };
            if position <= stage {
                return Err(syntax(part));
            }
            stage = position;
        }
        Ok(query)
    }

    fn read_sort(&mut self, arguments: &[Json]) -> Result<(), String> {
        let [Json::Object(entries)] = arguments else {
            return Err("Failed to parse query: bad sort".to_owned());
        };
        for (direction, fields) in entries {
            self.descending = match direction.as_str() {
                "$asc" => false,
                "$desc" => true,
                _ => return Err(syntax(direction)),
            };
            let Json::Array(fields) = fields else {
                return Err(syntax("sort"));
            };
            for field in strings(fields) {
                self.sort.push(Field::parse(&field)?);
            }
        }
        self.has_sort = true;
        Ok(())
    }
}

fn syntax(near: &str) -> String {
    format!(
        "Failed to parse query, it looks like there is syntax error near the following sub-query: {near}"
    )
}

/// Splits `(inside)after`; quotes hide parentheses.
fn parenthesized(text: &str) -> Result<(&str, &str), String> {
    let text = text.trim_start();
    if !text.starts_with('(') {
        return Err(syntax(text));
    }
    let (mut depth, mut quoted, mut escaped) = (0, false, false);
    for (at, byte) in text.bytes().enumerate() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if quoted => escaped = true,
            b'"' => quoted = !quoted,
            b'(' if !quoted => depth += 1,
            b')' if !quoted => {
                depth -= 1;
                if depth == 0 {
                    return Ok((&text[1..at], &text[at + 1..]));
                }
            }
            _ => {}
        }
    }
    Err(syntax(text))
}

fn parse_list(text: &str) -> Result<Vec<Json>, String> {
    Json::parse_list(text).ok_or_else(|| syntax(text))
}

/// The conditions of a list of objects.
fn criteria(list: Vec<Json>) -> Result<Criterion, String> {
    Ok(Criterion::All(criteria_list(list)?))
}

fn criteria_list(list: Vec<Json>) -> Result<Vec<Criterion>, String> {
    let mut criteria = Vec::new();
    for value in list {
        let Json::Object(entries) = value else {
            return Err(syntax("criteria"));
        };
        let mut inside = Vec::new();
        for (name, value) in entries {
            inside.push(criterion(name, value)?);
        }
        match inside.len() {
            1 => criteria.append(&mut inside),
            _ => criteria.push(Criterion::All(inside)),
        }
    }
    Ok(criteria)
}

fn criterion(name: String, value: Json) -> Result<Criterion, String> {
    if name.starts_with('$') {
        let list = match value {
            Json::Array(list) => criteria_list(list)?,
            value => criteria_list(vec![value])?,
        };
        return match name.as_str() {
            "$and" => Ok(Criterion::All(list)),
            "$or" => Ok(Criterion::Any(list)),
            "$msp" => Ok(Criterion::SameProperty(list)),
            _ => Err(syntax(&name)),
        };
    }
    let comparisons = match value {
        Json::Object(entries) => entries,
        value => vec![("$eq".to_owned(), value)],
    };
    let mut list = Vec::new();
    for (operator, value) in comparisons {
        list.push(match name.strip_prefix('@') {
            Some(key) => {
                let comparison = comparison(Field::PropertyValue, &operator, value)?;
                Criterion::Property(WildMatch::new(key), comparison)
            }
            None => {
                let field = Field::parse(&name)?;
                Criterion::Field(field, comparison(field, &operator, value)?)
            }
        });
    }
    match list.len() {
        1 => Ok(list.remove(0)),
        _ => Ok(Criterion::All(list)),
    }
}

fn comparison(field: Field, operator: &str, value: Json) -> Result<Comparison, String> {
    let order = match operator {
        "$eq" => Order::Equal,
        "$ne" => Order::NotEqual,
        "$gt" | "$last" => Order::Greater,
        "$gte" => Order::GreaterEqual,
        "$lt" | "$before" => Order::Less,
        "$lte" => Order::LessEqual,
        "$match" | "$nmatch" => {
            let Json::Text(pattern) = value else {
                return Err(syntax(operator));
            };
            let pattern = WildMatch::new(&pattern);
            return Ok(match operator {
                "$match" => Comparison::Match(pattern),
                _ => Comparison::NoMatch(pattern),
            });
        }
        _ => return Err(syntax(operator)),
    };
    let text = match value {
        Json::Null => return Ok(Comparison::Null(order)),
        Json::Number(number) => number.to_string(),
        Json::Text(text) => text,
        Json::Array(_) | Json::Object(_) => return Err(syntax(operator)),
    };
    if !field.is_number() {
        return Ok(Comparison::Text(order, text));
    }
    let number = match operator {
        "$last" | "$before" => duration(&text).map(|length| time::now() - length),
        _ if field.is_time() => time::parse(&text),
        _ => text.parse().ok(),
    };
    let number = number.ok_or_else(|| format!("Failed to parse query: invalid value '{text}'"))?;
    Ok(Comparison::Number(order, number))
}

/// Milliseconds of `7d`, `2w`, `3mo`, ...
fn duration(text: &str) -> Option<i64> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let unit = match &text[digits..] {
        "millis" | "ms" => 1,
        "seconds" | "s" => 1000,
        "minutes" | "mi" => 60_000,
        "days" | "d" => 86_400_000,
        "weeks" | "w" => 7 * 86_400_000,
        "months" | "mo" => 30 * 86_400_000,
        "years" | "y" => 365 * 86_400_000,
        _ => return None,
    };
    text[..digits].parse::<i64>().ok()?.checked_mul(unit)
}
