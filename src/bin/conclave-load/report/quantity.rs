//! Numbers as people read them: three figures that matter, and a unit. Pure.

/// `1,234,567`.
pub(crate) fn count(value: u64) -> String {
    let digits = value.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A rate or another real number: `0.52`, `49.9`, `1,234`.
pub(crate) fn real(value: f64) -> String {
    if value.abs() >= 100.0 {
        let whole = count(value.abs().round() as u64);
        return if value < 0.0 { format!("-{whole}") } else { whole };
    }
    figures(value)
}

/// Microseconds: `87 µs`, `1.25 ms`, `12.5 s`, `5 min`.
pub(crate) fn micros(value: f64) -> String {
    if value < 1e3 {
        format!("{value:.0} µs")
    } else if value < 999.5e3 {
        format!("{} ms", figures(value / 1e3))
    } else if value < 120e6 {
        format!("{} s", figures(value / 1e6))
    } else {
        format!("{} min", figures(value / 60e6))
    }
}

/// Seconds as a length of time: `30 s`, `2 min 5 s`, `3 h 20 min`.
pub(crate) fn seconds(value: f64) -> String {
    let whole = value.round() as u64;
    match (whole / 3600, whole / 60 % 60, whole % 60) {
        (0, 0, _) if value < 10.0 && (value - value.round()).abs() > 0.05 => format!("{value:.1} s"),
        (0, 0, s) => format!("{s} s"),
        (0, m, 0) => format!("{m} min"),
        (0, m, s) => format!("{m} min {s} s"),
        (h, 0, _) => format!("{h} h"),
        (h, m, _) => format!("{h} h {m} min"),
    }
}

/// Bytes: `512 B`, `21.9 KiB`, `1.50 GiB`.
pub(crate) fn bytes(value: u64) -> String {
    let mut value = value as f64;
    for unit in ["B", "KiB", "MiB"] {
        if value < 1023.5 {
            return if unit == "B" { format!("{value:.0} B") } else { format!("{} {unit}", figures(value)) };
        }
        value /= 1024.0;
    }
    format!("{} GiB", figures(value))
}

/// A share of 1: `12.5 %`.
pub(crate) fn percent(share: f64) -> String {
    format!("{} %", figures(share * 100.0))
}

/// A change as a share of 1, with its sign: `+3.2 %`, `−12 %`.
pub(crate) fn change(share: f64) -> String {
    let sign = match share {
        _ if share.abs() < 0.000_05 => "",
        _ if share < 0.0 => "−",
        _ => "+",
    };
    format!("{sign}{}", percent(share.abs()))
}

/// Three figures: `1.25`, `12.5`, `125`; no zeros behind the point of a whole number.
fn figures(value: f64) -> String {
    let text = match value.abs() {
        size if size < 9.995 => format!("{value:.2}"),
        size if size < 99.95 => format!("{value:.1}"),
        _ => format!("{value:.0}"),
    };
    match text.split_once('.') {
        Some((whole, behind)) if behind.bytes().all(|digit| digit == b'0') => whole.to_owned(),
        Some(_) | None => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_are_grouped() {
        assert_eq!([0, 999, 1000, 1_234_567].map(count), ["0", "999", "1,000", "1,234,567"]);
    }

    #[test]
    fn reals_have_three_figures() {
        assert_eq!(
            [0.0, 0.523, 50.0, 49.94, 99.96, 1234.4, -1234.4].map(real),
            ["0", "0.52", "50", "49.9", "100", "1,234", "-1,234"]
        );
    }

    #[test]
    fn latencies_have_the_unit_that_suits_them() {
        let of = [0.0, 87.0, 999.0, 1000.0, 1254.0, 12_540.0, 999_000.0, 999_900.0, 12.5e6, 600e6].map(micros);
        assert_eq!(of, ["0 µs", "87 µs", "999 µs", "1 ms", "1.25 ms", "12.5 ms", "999 ms", "1 s", "12.5 s", "10 min"]);
    }

    #[test]
    fn lengths_of_time_are_said_as_people_say_them() {
        assert_eq!(
            [1.5, 30.0, 59.7, 125.0, 12_000.0, 7200.0].map(seconds),
            ["1.5 s", "30 s", "1 min", "2 min 5 s", "3 h 20 min", "2 h"]
        );
    }

    #[test]
    fn memory_is_binary() {
        assert_eq!([512, 22_375, 1024 * 1024, 1_610_612_736].map(bytes), ["512 B", "21.9 KiB", "1 MiB", "1.50 GiB"]);
    }

    #[test]
    fn changes_have_a_sign() {
        assert_eq!([0.032, -0.12, 0.0].map(change), ["+3.20 %", "−12 %", "0 %"]);
    }
}
