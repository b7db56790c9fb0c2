//! Lists and maps of documents that are counted to their end and held up to a limit: an item of two bytes of JSON
//! takes dozens in memory.

use std::fmt;
use std::marker::PhantomData;

use serde::de::{Deserialize, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};

use crate::error::{Error, Kind};

type Result<T, E = Error> = std::result::Result<T, E>;

/// The first `MAX` items of a list, in their order.
pub(super) struct Counted<T, const MAX: usize> {
    items: Vec<T>,
    /// All there are.
    pub(super) n_items: usize,
}

/// The first `MAX` keys of a map, in their order.
pub(super) struct CountedKeys<const MAX: usize>(Counted<String, MAX>);

impl<T, const MAX: usize> Counted<T, MAX> {
    /// The items. Errors (`Limit`) when there are more than `MAX`; `message` says so, given the number and `MAX`.
    pub(super) fn all(self, message: impl FnOnce(usize, usize) -> String) -> Result<Vec<T>> {
        if self.n_items > MAX {
            return Err(Error::new(Kind::Limit, message(self.n_items, MAX)));
        }
        Ok(self.items)
    }
}

impl<const MAX: usize> CountedKeys<MAX> {
    /// As [`Counted::all`].
    pub(super) fn all(self, message: impl FnOnce(usize, usize) -> String) -> Result<Vec<String>> {
        self.0.all(message)
    }
}

impl<T, const MAX: usize> Default for Counted<T, MAX> {
    fn default() -> Self {
        Counted {
            items: Vec::new(),
            n_items: 0,
        }
    }
}

impl<const MAX: usize> Default for CountedKeys<MAX> {
    fn default() -> Self {
        CountedKeys(Counted::default())
    }
}

impl<'de, T: Deserialize<'de>, const MAX: usize> Deserialize<'de> for Counted<T, MAX> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct List<T, const MAX: usize>(PhantomData<T>);
        impl<'de, T: Deserialize<'de>, const MAX: usize> Visitor<'de> for List<T, MAX> {
            type Value = Counted<T, MAX>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a sequence")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Self::Value, A::Error> {
                let mut counted = Counted::default();
                while counted.items.len() < MAX
                    && let Some(item) = list.next_element()?
                {
                    counted.items.push(item);
                }
                counted.n_items = counted.items.len();
                while list.next_element::<IgnoredAny>()?.is_some() {
                    counted.n_items += 1;
                }
                Ok(counted)
            }
        }
        deserializer.deserialize_seq(List(PhantomData))
    }
}

impl<'de, const MAX: usize> Deserialize<'de> for CountedKeys<MAX> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Keys<const MAX: usize>;
        impl<'de, const MAX: usize> Visitor<'de> for Keys<MAX> {
            type Value = CountedKeys<MAX>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a map")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut counted = Counted::default();
                while counted.items.len() < MAX
                    && let Some((key, IgnoredAny)) = map.next_entry()?
                {
                    counted.items.push(key);
                }
                counted.n_items = counted.items.len();
                while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {
                    counted.n_items += 1;
                }
                Ok(CountedKeys(counted))
            }
        }
        deserializer.deserialize_map(Keys)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn up_to_the_limit_all_are_held_and_beyond_it_all_are_counted() {
        let say = |n: usize, max: usize| format!("{n} of {max}");
        let list = |text| serde_json::from_str::<Counted<u8, 2>>(text).unwrap();
        let keys = |text| serde_json::from_str::<CountedKeys<2>>(text).unwrap();
        assert_eq!(list("[]").all(say).unwrap(), [0; 0]);
        assert_eq!(list("[1,2]").all(say).unwrap(), [1, 2]);
        let err = list(r#"[1,2,3,"x",[]]"#).all(say).unwrap_err();
        assert_eq!(
            (err.to_string(), err.kind()),
            ("5 of 2".to_owned(), Kind::Limit)
        );
        assert_eq!(list("[1,2,3]").n_items, 3);
        assert_eq!(keys(r#"{"b":1,"a":[]}"#).all(say).unwrap(), ["b", "a"]);
        let err = keys(r#"{"b":1,"a":[],"c":{}}"#).all(say).unwrap_err();
        assert_eq!(err.to_string(), "3 of 2");
        assert!(serde_json::from_str::<Counted<u8, 2>>("7").is_err());
        assert!(serde_json::from_str::<CountedKeys<2>>("[]").is_err());
    }
}
