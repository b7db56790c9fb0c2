//! Behaviours that differ between server versions, editions and bad days, by name.
//!
//! A switch is set by text (`emulator.set("link", "numeric")`, `--switch link=numeric`), so that
//! the binary and the tests name it the same way. [`TABLE`] is the list. *Invariant:* an unknown
//! name or a value that cannot be read is refused.

use std::collections::BTreeMap;
use std::time::Duration;

use super::switch_table::TABLE;

/// The position of every switch.
#[derive(Clone)]
pub(crate) struct Switches(BTreeMap<&'static str, String>);

impl Default for Switches {
    fn default() -> Switches {
        let positions = TABLE
            .iter()
            .map(|(name, value, _)| (*name, (*value).to_owned()));
        Switches(positions.collect())
    }
}

impl Switches {
    /// Sets one switch; an error for an unknown name or a value of the wrong kind.
    pub(crate) fn set(&mut self, name: &str, value: &str) -> Result<(), String> {
        let Some((name, default, meaning)) = TABLE.iter().find(|(known, ..)| *known == name) else {
            return Err(format!("unknown switch `{name}`"));
        };
        let value = match (*default, value) {
            ("on" | "off", "true") => "on",
            ("on" | "off", "false") => "off",
            _ => value,
        };
        let fits = if default.parse::<u64>().is_ok() && *name != "fault_status" {
            value.parse::<u64>().is_ok()
        } else if *name == "suspended" {
            !value.is_empty()
        } else if matches!(*default, "on" | "off") && *name != "redirect" {
            matches!(value, "on" | "off")
        } else {
            allowed(meaning, value)
        };
        if !fits {
            return Err(format!("switch `{name}` cannot be `{value}`: {meaning}"));
        }
        self.0.insert(name, value.to_owned());
        Ok(())
    }

    pub(crate) fn text(&self, name: &str) -> &str {
        self.0
            .get(name)
            .unwrap_or_else(|| panic!("switch `{name}` is not in the table"))
    }

    pub(crate) fn is(&self, name: &str, value: &str) -> bool {
        self.text(name) == value
    }

    pub(crate) fn on(&self, name: &str) -> bool {
        self.is(name, "on")
    }

    /// The value of a number switch; 0 when it is a word.
    pub(crate) fn number(&self, name: &str) -> u64 {
        self.text(name).parse().unwrap_or(0)
    }

    /// The value of a status switch; `None` when it is a word such as `ok` or 0.
    pub(crate) fn status(&self, name: &str) -> Option<u16> {
        self.text(name).parse().ok().filter(|status| *status != 0)
    }

    pub(crate) fn pause(&self, name: &str) -> Duration {
        Duration::from_millis(self.number(name))
    }
}

/// True when the meaning names the value, or names a status and the value is one, or is free text.
fn allowed(meaning: &str, value: &str) -> bool {
    let named = meaning
        .split([',', ':', ' ', '(', ')', '`'])
        .any(|word| word == value);
    let is_status = meaning.contains("status") && value.parse::<u16>().is_ok();
    let is_free = !meaning.contains(',') && !meaning.contains(" or ");
    named || is_status || is_free || value.is_empty()
}
