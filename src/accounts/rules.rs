//! What a name, a password and a display name may be.

use crate::protocol::Refusal;

/// The commonest passwords of ten characters and more, in lower case, as far as they are widely known; shorter
/// ones are too short anyway.
const COMMONEST: &[&str] = &[
    "0000000000",
    "0123456789",
    "0987654321",
    "1029384756",
    "1111111111",
    "11223344556",
    "1122334455",
    "1212121212",
    "12345678900",
    "1234567890",
    "12345678901",
    "123456789012",
    "1234567890q",
    "1234567890a",
    "1234567891",
    "12345678910",
    "123456789123",
    "1234567899",
    "123456789a",
    "123456789abc",
    "123456789m",
    "123456789q",
    "123456789s",
    "123456789z",
    "12345qwert",
    "1234qwerasdf",
    "1234512345",
    "123123123123",
    "1231231234",
    "123321123321",
    "147258369a",
    "1472583690",
    "159357456852",
    "1a2b3c4d5e",
    "1g2w3e4r5t",
    "1q2w3e4r5t",
    "1q2w3e4r5t6y",
    "1q2w3e4r5t6y7u8i",
    "1qaz2wsx3edc",
    "1qaz2wsx3edc4rfv",
    "1qazxsw23edc",
    "2222222222",
    "3333333333",
    "5555555555",
    "6666666666",
    "7777777777",
    "741852963a",
    "789456123a",
    "7894561230",
    "8888888888",
    "9876543210",
    "987654321a",
    "9999999999",
    "a123456789",
    "a1b2c3d4e5",
    "aa123456789",
    "aa12345678",
    "abc123456789",
    "abc1234567",
    "abcd123456",
    "abcd1234567",
    "abcde12345",
    "abcdef1234",
    "abcdefghij",
    "abcdefghijk",
    "administrator",
    "adminadmin",
    "admin12345",
    "admin123456",
    "alexander1",
    "asdf123456",
    "asdf1234567",
    "asdfasdfasdf",
    "asdfghjkl1",
    "asdfghjkl;",
    "asdfghjkl123",
    "asdfghjklzxcvbnm",
    "asdfjkl123",
    "azertyuiop",
    "barcelona1",
    "baseball123",
    "basketball",
    "basketball1",
    "butterfly1",
    "changeme123",
    "changeme1234",
    "charlie123",
    "chocolate1",
    "christopher",
    "computer123",
    "correcthorsebatterystaple",
    "default123",
    "dragon12345",
    "elizabeth1",
    "fktrcfylhf",
    "football123",
    "footballer",
    "freedom123",
    "fuckyou123",
    "fyfcnfcbz1",
    "google12345",
    "gfhjkm12345",
    "hello12345",
    "hello123456",
    "iloveyou12",
    "iloveyou123",
    "iloveyou1234",
    "iloveyousomuch",
    "internet123",
    "jennifer123",
    "jonathan123",
    "juventus123",
    "letmein123",
    "letmein1234",
    "leonardo123",
    "linkedin123",
    "liverpool1",
    "liverpool123",
    "lovelovelove",
    "loveyou123",
    "manchester",
    "manunited1",
    "mastermaster",
    "michael123",
    "michelle123",
    "minecraft1",
    "minecraft123",
    "mississippi",
    "monkey12345",
    "motherfucker",
    "mustang123",
    "myspace123",
    "mynameis123",
    "naruto1234",
    "nicole12345",
    "p@ssw0rd12",
    "p@ssw0rd123",
    "p@ssword123",
    "pa$$w0rd123",
    "pakistan123",
    "pass123456",
    "pass1234567",
    "passw0rd12",
    "passw0rd123",
    "password00",
    "password01",
    "password10",
    "password11",
    "password12",
    "password123",
    "password123!",
    "password1234",
    "password12345",
    "password123456",
    "password21",
    "password22",
    "password99",
    "password!1",
    "password@1",
    "password@123",
    "passwordpassword",
    "passwort123",
    "pokemon123",
    "portugal123",
    "princess12",
    "princess123",
    "q1w2e3r4t5",
    "q1w2e3r4t5y6",
    "qazwsx1234",
    "qazwsx12345",
    "qazwsx123456",
    "qazwsxedc1",
    "qazwsxedc123",
    "qazwsxedcrfv",
    "qwaszx123456",
    "qweasdzxc1",
    "qweasdzxc123",
    "qwer123456",
    "qwerasdfzxcv",
    "qwert12345",
    "qwerty1234",
    "qwerty12345",
    "qwerty123456",
    "qwerty1234567",
    "qwerty123456789",
    "qwertyqwerty",
    "qwertyu123",
    "qwertyuiop",
    "qwertyuiop1",
    "qwertyuiop123",
    "qwertyuiop[]",
    "qwertyuiopasdfghjklzxcvbnm",
    "realmadrid",
    "samsung123",
    "schalke04!",
    "secret12345",
    "slipknot666",
    "spiderman1",
    "starwars123",
    "steaua1234",
    "sunshine12",
    "sunshine123",
    "superman12",
    "superman123",
    "superstar1",
    "test123456",
    "test1234567",
    "testtest123",
    "thisismypassword",
    "trustno1trustno1",
    "unknown123",
    "volleyball",
    "welcome123",
    "welcome1234",
    "welcome12345",
    "whatever123",
    "william123",
    "xbox360123",
    "zaq12wsxcde3",
    "zaq1xsw2cde3",
    "zxcvbnm123",
    "zxcvbnm1234",
    "zxcvbnm12345",
    "zxcvbnm123456789",
    "zxcvbnmasdfghjkl",
];

/// 3 to 32 of `a-z 0-9 . _ -`.
///
/// # Errors
/// `invalid_argument`.
pub(super) fn check_name(name: &str) -> Result<(), Refusal> {
    let right = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'.' | b'_' | b'-');
    if (3..=32).contains(&name.len()) && name.bytes().all(right) {
        return Ok(());
    }
    Err(Refusal::invalid("name", "expected 3 to 32 of a-z, 0-9, '.', '_' and '-'"))
}

/// 10 to 1,024 bytes, and none of the commonest.
///
/// # Errors
/// `invalid_argument`, naming `field`.
pub(super) fn check_password(field: &str, password: &str) -> Result<(), Refusal> {
    if !(10..=1024).contains(&password.len()) {
        return Err(Refusal::invalid(field, "expected 10 to 1024 bytes"));
    }
    if COMMONEST.contains(&password.to_lowercase().as_str()) {
        return Err(Refusal::invalid(field, "expected a password that is not one of the commonest"));
    }
    Ok(())
}

/// Something to show: not empty, without control characters, which could rewrite a terminal.
///
/// # Errors
/// `invalid_argument`.
pub(super) fn check_display_name(name: &str, most: usize) -> Result<(), Refusal> {
    if name.is_empty() || name.len() > most || name.chars().any(char::is_control) {
        return Err(Refusal::invalid(
            "display_name",
            &format!("expected 1 to {most} bytes without control characters"),
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        let long = "a".repeat(32);
        for name in ["abc", "a.b", "a-b_c.9", "000", "...", long.as_str()] {
            assert_eq!(check_name(name), Ok(()), "{name}");
        }
        let too_long = "a".repeat(33);
        for name in ["", "ab", "Abc", "a b", "äbc", "a/b", "abc\n", "abc\0", too_long.as_str()] {
            assert!(check_name(name).is_err(), "{name:?}");
        }
    }

    #[test]
    fn passwords() {
        let (long, too_long) = ("x".repeat(1024), "x".repeat(1025));
        for password in ["a fine one", "ten bytes!", "ääääà", long.as_str()] {
            assert_eq!(check_password("password", password), Ok(()), "{password}");
        }
        for password in ["", "nine char", "Password123", "1234567890", "QWERTYUIOP", too_long.as_str()] {
            assert!(check_password("password", password).is_err(), "{password}");
        }
        let refusal = check_password("new_password", "short").unwrap_err();
        assert_eq!(refusal.message, "new_password: expected 10 to 1024 bytes");
    }

    #[test]
    fn the_commonest_are_long_enough_to_matter_and_in_lower_case() {
        for password in COMMONEST {
            assert!(password.len() >= 10 && *password == password.to_lowercase(), "{password}");
        }
    }

    #[test]
    fn display_names() {
        assert_eq!(check_display_name("Ann Ämter 🦀", 256), Ok(()));
        for name in ["", "a\u{1b}[2J", "a\nb", "aaaa"] {
            assert!(check_display_name(name, 3).is_err(), "{name:?}");
        }
    }
}
