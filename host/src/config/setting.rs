//! The types that settings have, and how each is written.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::num::{NonZeroU32, NonZeroUsize};
use std::path::PathBuf;
use std::time::Duration;

use super::duration;

/// A type that a setting can have.
pub trait Setting: Sized {
    /// What to write, for people: `expected …`.
    const EXPECTED: &'static str;
    /// Whether the text must never be shown.
    const SECRET: bool = false;
    /// Reads the text; `None` where it is something else.
    fn parse(text: &str) -> Option<Self>;
}

/// `infinity`, zero or less: no limit. Otherwise the number.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Limit(pub Option<usize>);

/// `infinity`, `all`, `off` or zero: no limit. Otherwise the duration.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TimeLimit(pub Option<Duration>);

/// A number of bytes: `64`, `256KB`, `1MB`; 1 KB is 1024 bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct ByteSize(pub usize);

/// `infinity`, `off` or zero: no limit. Otherwise a number of bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SizeLimit(pub Option<u64>);

/// `off`, or a value.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OrOff<T>(pub Option<T>);

/// The addresses that a listener binds, as EMQ X writes them: `1883` is every interface, several are
/// separated by commas.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Addresses(pub Vec<SocketAddr>);

/// Servers to connect to: `host[:port]`, several separated by commas. Names are not looked up here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hosts(pub Vec<(String, Option<u16>)>);

/// A password or key: written out, `file:<path>` or `env:<VARIABLE>`. Never shown.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// The secret itself, for the driver that needs it.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("******")
    }
}

impl fmt::Display for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("******")
    }
}

macro_rules! parsed_by_std {
    ($($type:ty: $expected:literal),* $(,)?) => {$(
        impl Setting for $type {
            const EXPECTED: &'static str = $expected;
            fn parse(text: &str) -> Option<Self> {
                text.parse().ok()
            }
        }
    )*};
}
parsed_by_std! {
    String: "text",
    PathBuf: "a path",
    u8: "a whole number from 0 to 255",
    u16: "a whole number from 0 to 65535",
    u32: "a whole number from 0 to 4294967295",
    u64: "a whole number, 0 or more",
    usize: "a whole number, 0 or more",
    i64: "a whole number",
    f64: "a number",
    NonZeroU32: "a whole number, 1 or more",
    NonZeroUsize: "a whole number, 1 or more",
}

impl Setting for bool {
    const EXPECTED: &'static str = "true, false, on or off";
    fn parse(text: &str) -> Option<Self> {
        match text {
            "true" | "on" => Some(true),
            "false" | "off" => Some(false),
            _ => None,
        }
    }
}

impl Setting for Duration {
    const EXPECTED: &'static str = "a duration such as 500ms, 30s, 1m30s, 2h or 7d (a bare number is seconds)";
    fn parse(text: &str) -> Option<Self> {
        duration::parse(text)
    }
}

impl Setting for Limit {
    const EXPECTED: &'static str = "a whole number or infinity";
    fn parse(text: &str) -> Option<Self> {
        if text == "infinity" {
            return Some(Self(None));
        }
        let number: i64 = text.parse().ok()?;
        let limit = usize::try_from(number).ok().filter(|limit| *limit > 0);
        Some(Self(limit))
    }
}

impl Setting for TimeLimit {
    const EXPECTED: &'static str = "a duration such as 30s, 2h or 7d, or infinity";
    fn parse(text: &str) -> Option<Self> {
        if matches!(text, "infinity" | "all" | "off") {
            return Some(Self(None));
        }
        let limit = duration::parse(text)?;
        Some(Self((!limit.is_zero()).then_some(limit)))
    }
}

impl Setting for ByteSize {
    const EXPECTED: &'static str = "a size such as 65536, 256KB, 1MB or 1GB";
    fn parse(text: &str) -> Option<Self> {
        let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
        let factor = match text[digits..].to_ascii_lowercase().as_str() {
            "" | "b" => 1,
            "kb" => 1 << 10,
            "mb" => 1 << 20,
            "gb" => 1 << 30,
            _ => return None,
        };
        text[..digits].parse::<usize>().ok()?.checked_mul(factor).map(Self)
    }
}

impl Setting for SizeLimit {
    const EXPECTED: &'static str = "a size such as 256MB or 10GB, or infinity";
    fn parse(text: &str) -> Option<Self> {
        if matches!(text, "infinity" | "off") {
            return Some(Self(None));
        }
        let bytes = ByteSize::parse(text)?.0 as u64;
        Some(Self((bytes > 0).then_some(bytes)))
    }
}

impl<T: Setting> Setting for OrOff<T> {
    const EXPECTED: &'static str = T::EXPECTED;
    const SECRET: bool = T::SECRET;
    fn parse(text: &str) -> Option<Self> {
        match text {
            "off" => Some(Self(None)),
            _ => T::parse(text).map(|value| Self(Some(value))),
        }
    }
}

impl Setting for SocketAddr {
    const EXPECTED: &'static str = "an address such as 127.0.0.1:8081";
    fn parse(text: &str) -> Option<Self> {
        // EMQ X's `:::1883` is every IPv6 interface, so the last colon separates the port.
        let (host, port) = match text.rsplit_once(':') {
            Some((host, port)) => (host, port),
            None => ("0.0.0.0", text),
        };
        let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
        let ip = match bare.unwrap_or(host) {
            "localhost" => IpAddr::V4(Ipv4Addr::LOCALHOST),
            host => host.parse().ok()?,
        };
        Some(Self::new(ip, port.parse().ok()?))
    }
}

impl Setting for Addresses {
    const EXPECTED: &'static str =
        "an address such as 127.0.0.1:1883, or 1883 for every interface; several are separated by commas";
    fn parse(text: &str) -> Option<Self> {
        list(text, SocketAddr::parse).map(Self)
    }
}

impl Setting for Hosts {
    const EXPECTED: &'static str = "host or host:port; several are separated by commas";
    fn parse(text: &str) -> Option<Self> {
        list(text, |server| {
            let (host, port) = match server.rsplit_once(':') {
                Some((host, port)) if !server.ends_with(']') => (host, Some(port.parse().ok()?)),
                _ => (server, None),
            };
            let fine = !host.is_empty() && host.chars().all(|c| c.is_ascii_graphic() && c != '/');
            fine.then(|| (host.to_owned(), port))
        })
        .map(Self)
    }
}

impl Setting for Secret {
    const EXPECTED: &'static str = "the secret itself, file:<path> of a file that can be read, \
                                    or env:<VARIABLE> of a variable that is set";
    const SECRET: bool = true;
    fn parse(text: &str) -> Option<Self> {
        if let Some(path) = text.strip_prefix("file:") {
            let read = std::fs::read_to_string(path).ok()?;
            return Some(Self(read.trim_end_matches(['\n', '\r']).to_owned()));
        }
        match text.strip_prefix("env:") {
            Some(variable) => std::env::var(variable).ok().map(Self),
            None => Some(Self(text.to_owned())),
        }
    }
}

fn list<T>(text: &str, one: impl Fn(&str) -> Option<T>) -> Option<Vec<T>> {
    text.split(',').map(|part| one(part.trim())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_numbers_or_infinity() {
        for (text, expected) in [
            ("500", Some(Limit(Some(500)))),
            ("infinity", Some(Limit(None))),
            ("0", Some(Limit(None))),
            ("-1", Some(Limit(None))),
            ("many", None),
        ] {
            assert_eq!(Limit::parse(text), expected, "{text}");
        }
        assert_eq!(TimeLimit::parse("2h"), Some(TimeLimit(Some(Duration::from_secs(7200)))));
        assert_eq!(TimeLimit::parse("all"), Some(TimeLimit(None)));
        assert_eq!(TimeLimit::parse("0"), Some(TimeLimit(None)));
    }

    #[test]
    fn sizes_have_units_of_1024() {
        for (text, bytes) in [
            ("64", Some(64)),
            ("256KB", Some(262_144)),
            ("1mb", Some(1 << 20)),
            ("2GB", Some(2 << 30)),
            ("MB", None),
            ("1TB", None),
            ("1.5MB", None),
            ("99999999999999999GB", None),
        ] {
            assert_eq!(ByteSize::parse(text), bytes.map(ByteSize), "{text}");
        }
        assert_eq!(OrOff::<ByteSize>::parse("off"), Some(OrOff(None)));
        assert_eq!(SizeLimit::parse("10GB"), Some(SizeLimit(Some(10 << 30))));
        assert_eq!(SizeLimit::parse("infinity"), Some(SizeLimit(None)));
    }

    #[test]
    fn listeners_are_written_as_in_emq_x() {
        for (text, expected) in [
            ("127.0.0.1:1883", Some(vec!["127.0.0.1:1883"])),
            ("1883", Some(vec!["0.0.0.0:1883"])),
            (":::1883", Some(vec!["[::]:1883"])),
            ("[::1]:1883", Some(vec!["[::1]:1883"])),
            ("localhost:1883, [::1]:1883", Some(vec!["127.0.0.1:1883", "[::1]:1883"])),
            ("example.org:1883", None),
            ("127.0.0.1", None),
            ("127.0.0.1:99999", None),
            ("", None),
        ] {
            let expected = expected.map(|all| Addresses(all.iter().map(|one| one.parse().unwrap()).collect()));
            assert_eq!(Addresses::parse(text), expected, "{text:?}");
        }
    }

    #[test]
    fn servers_are_names_with_or_without_a_port() {
        let servers = Hosts::parse("db1:3306, db2").unwrap();
        assert_eq!(servers.0, [("db1".to_owned(), Some(3306)), ("db2".to_owned(), None)]);
        assert_eq!(Hosts::parse("[::1]").unwrap().0, [("[::1]".to_owned(), None)]);
        for bad in ["", "db1:", ":3306", "db1:port", "a b", "http://db1"] {
            assert_eq!(Hosts::parse(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn a_secret_is_read_from_where_it_lies_and_never_shown() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "s3cret\n").unwrap();
        let secret = Secret::parse(&format!("file:{}", file.path().display())).unwrap();
        assert_eq!(secret.reveal(), "s3cret");
        assert_eq!(format!("{secret} {secret:?}"), "****** ******");
        assert_eq!(Secret::parse("plain").unwrap().reveal(), "plain");
        assert_eq!(Secret::parse("file:/no/such/file"), None);
        assert_eq!(Secret::parse("env:HOOKLINE_TEST_NOT_SET"), None);
    }
}
