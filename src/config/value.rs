//! Types that a setting can have: how each is read from text and from TOML, and how it is shown.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;

use config::ValueKind;
use ipnet::IpNet;

/// How log lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// For people; in colour on a terminal.
    Pretty,
    /// One JSON object per line.
    Json,
}

/// Where everything is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StoreKind {
    /// In the data directory of one node.
    Sqlite,
    /// In a database that many nodes share.
    Postgres,
}

/// What carries messages between nodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BusKind {
    /// Nothing: there is one node.
    Local,
    /// Redis.
    Redis,
}

/// A setting that is used and never shown.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// What [`Setting::show`] gives in place of any secret.
    pub const HIDDEN: &'static str = "<a secret>";

    /// The text itself.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(Self::HIDDEN)
    }
}

impl Setting for Secret {
    const EXPECTED: &'static str = String::EXPECTED;

    fn from_text(text: &str) -> Option<Self> {
        String::from_text(text).map(Self)
    }

    fn from_file(value: &ValueKind) -> Option<Self> {
        String::from_file(value).map(Self)
    }

    fn show(&self) -> String {
        Self::HIDDEN.to_owned()
    }
}

/// A type that a setting can have.
pub trait Setting: Sized {
    /// What would be right, for refusals: "expected ..".
    const EXPECTED: &'static str;

    /// Reads the text of an environment variable or a flag.
    fn from_text(text: &str) -> Option<Self>;

    /// Reads a value of the file.
    fn from_file(value: &ValueKind) -> Option<Self>;

    /// As it would stand in the file.
    fn show(&self) -> String;
}

/// Whole numbers: in the file as such, in the environment by their digits.
macro_rules! numbers {
    ($($number:ty),*) => {$(
        impl Setting for $number {
            const EXPECTED: &'static str = "a whole number from 0";

            fn from_text(text: &str) -> Option<Self> {
                text.parse().ok()
            }

            fn from_file(value: &ValueKind) -> Option<Self> {
                match value {
                    ValueKind::I64(number) => Self::try_from(*number).ok(),
                    ValueKind::U64(number) => Self::try_from(*number).ok(),
                    ValueKind::I128(_)
                    | ValueKind::U128(_)
                    | ValueKind::Nil
                    | ValueKind::Boolean(_)
                    | ValueKind::Float(_)
                    | ValueKind::String(_)
                    | ValueKind::Table(_)
                    | ValueKind::Array(_) => None,
                }
            }

            fn show(&self) -> String {
                self.to_string()
            }
        }
    )*};
}

numbers!(u32, u64, usize);

impl Setting for bool {
    const EXPECTED: &'static str = "true or false";

    fn from_text(text: &str) -> Option<Self> {
        text.parse().ok()
    }

    fn from_file(value: &ValueKind) -> Option<Self> {
        if let ValueKind::Boolean(value) = value { Some(*value) } else { None }
    }

    fn show(&self) -> String {
        self.to_string()
    }
}

/// What is a string in the file, and is parsed from it.
macro_rules! strings {
    ($($kind:ty, $expected:literal, $parse:expr, $show:expr;)*) => {$(
        impl Setting for $kind {
            const EXPECTED: &'static str = $expected;

            fn from_text(text: &str) -> Option<Self> {
                let parse: fn(&str) -> Option<Self> = $parse;
                parse(text)
            }

            fn from_file(value: &ValueKind) -> Option<Self> {
                if let ValueKind::String(text) = value { Self::from_text(text) } else { None }
            }

            fn show(&self) -> String {
                let show: fn(&Self) -> String = $show;
                format!("{:?}", show(self))
            }
        }
    )*};
}

strings! {
    String, "a string that is not empty", |text| (!text.is_empty()).then(|| text.to_owned()), Self::clone;
    PathBuf, "a path, as a string",
        |text| (!text.is_empty()).then(|| Self::from(text)), |path| path.to_string_lossy().into_owned();
    SocketAddr, "an address and a port, such as \"127.0.0.1:8080\"", |text| text.parse().ok(), ToString::to_string;
    IpNet, "a network such as \"10.0.0.0/8\", or an address",
        |text| text.parse().ok().or_else(|| text.parse::<std::net::IpAddr>().ok().map(Self::from)), ToString::to_string;
    StoreKind, "\"sqlite\" or \"postgres\"",
        |text| match text {
            "sqlite" => Some(Self::Sqlite),
            "postgres" => Some(Self::Postgres),
            _ => None,
        },
        |kind| match kind {
            Self::Sqlite => "sqlite".to_owned(),
            Self::Postgres => "postgres".to_owned(),
        };
    BusKind, "\"local\" or \"redis\"",
        |text| match text {
            "local" => Some(Self::Local),
            "redis" => Some(Self::Redis),
            _ => None,
        },
        |kind| match kind {
            Self::Local => "local".to_owned(),
            Self::Redis => "redis".to_owned(),
        };
    LogFormat, "\"pretty\" or \"json\"",
        |text| match text {
            "pretty" => Some(Self::Pretty),
            "json" => Some(Self::Json),
            _ => None,
        },
        |format| match format {
            Self::Pretty => "pretty".to_owned(),
            Self::Json => "json".to_owned(),
        };
}

/// What may be left out; an empty environment variable counts as left out.
impl<T: Setting> Setting for Option<T> {
    const EXPECTED: &'static str = T::EXPECTED;

    fn from_text(text: &str) -> Option<Self> {
        if text.is_empty() { Some(None) } else { T::from_text(text).map(Some) }
    }

    fn from_file(value: &ValueKind) -> Option<Self> {
        T::from_file(value).map(Some)
    }

    fn show(&self) -> String {
        self.as_ref().map_or_else(|| "none".to_owned(), T::show)
    }
}

/// A list; in the environment with commas between.
impl<T: Setting> Setting for Vec<T> {
    const EXPECTED: &'static str = "a list (in the environment with commas between)";

    fn from_text(text: &str) -> Option<Self> {
        text.split(',').map(str::trim).filter(|part| !part.is_empty()).map(T::from_text).collect()
    }

    fn from_file(value: &ValueKind) -> Option<Self> {
        if let ValueKind::Array(values) = value {
            values.iter().map(|value| T::from_file(&value.kind)).collect()
        } else {
            None
        }
    }

    fn show(&self) -> String {
        format!("[{}]", self.iter().map(T::show).collect::<Vec<_>>().join(", "))
    }
}
