//! Public keys of nobody: the server never needs the private ones, and room keys are opaque to it.

/// RSA with 2048 bits: base64 of the DER of SubjectPublicKeyInfo.
pub(crate) const SPKI: &str = concat!(
    "MIIBIjANBgkqhkiG9w0BAQEFAAOCAQ8AMIIBCgKCAQEA2hUWvlbTGBZEq95lSypR8Zmu5tc4xZQF7Qu0ZjnNApVUOq/O8DVj",
    "7e/x4XRb8LhH8FlRkH3/FSTsWJ6ARaYM5pXJsU/bEje1WUVj+F88GtyEbnWxjh6gXBnw/mBznXoe0wSuXtx27uC7x/A5K1/k",
    "Od6RkI9PkifQ0VXXk/yg8gOk+xGtI6xkA4NF7MKmiv54qfyjG1HrVS6Iu4k9CpZz5dQKvi61Dit288R422XTIEmUk6OlZOE3",
    "e6ifd0+430Gdst9VbinlxGxE54tGrosLExJePzP8aKm7PPlax5FmczVildK33ufxfcqUhebqZeFZU9p5RXR3hfg8LcK3klPB",
    "5QIDAQAB",
);

/// The same key: base64 of the DER of PKCS#1.
pub(crate) const PKCS1: &str = concat!(
    "MIIBCgKCAQEA2hUWvlbTGBZEq95lSypR8Zmu5tc4xZQF7Qu0ZjnNApVUOq/O8DVj7e/x4XRb8LhH8FlRkH3/FSTsWJ6ARaYM",
    "5pXJsU/bEje1WUVj+F88GtyEbnWxjh6gXBnw/mBznXoe0wSuXtx27uC7x/A5K1/kOd6RkI9PkifQ0VXXk/yg8gOk+xGtI6xk",
    "A4NF7MKmiv54qfyjG1HrVS6Iu4k9CpZz5dQKvi61Dit288R422XTIEmUk6OlZOE3e6ifd0+430Gdst9VbinlxGxE54tGrosL",
    "ExJePzP8aKm7PPlax5FmczVildK33ufxfcqUhebqZeFZU9p5RXR3hfg8LcK3klPB5QIDAQAB",
);

/// Another key, with 3072 bits.
pub(crate) const OTHER_SPKI: &str = concat!(
    "MIIBojANBgkqhkiG9w0BAQEFAAOCAY8AMIIBigKCAYEArrk7LNNv/wtpPg1R+1il2wqU7//L/75WQKOS667Wu1DD1QClNw2c",
    "tHFxnF/w1rSamq5FFJ/wOeQ60J8jTSErIm6AO7dI9R97ZE8Fr9GV9EfiEfhzRHdxQqDBLx3DACk0P/1TFZObr7NAJUX92oa3",
    "FPFbG2eGrx5o6lZfJVsGJqSUI7+Z7779QHv2NpUp2Vx2R/LYWjZGkxkLUVbulwvpNWPUG6st1fPUwQ6UcKbIeEjCDZTmBYLk",
    "e+ErXGGkS+acaXsNmd1AhrRWtNcr6ruB9w5Hk/BDunXf0Tct1GHScOsk3jllb6WNAsKJ/OO/yU+wy6Elw8c2Tv7thH1yucHT",
    "M8XwyatIz0CoTFkymfhzQ+APJLbAm+woWDisOYhcmhc+xYQQM1FMpleH7am0HtHEGLsPj64VLgtvBp1OI8bEMuha/rL+8VxZ",
    "exLBS//qz0jKUvSWwnnu++MFCB/uQ4VER8CYZ17Hs3TLJT0fkcfj0IlInvivfmQG0JX+dnW/arNzAgMBAAE=",
);

/// 1024 bits: too few.
pub(crate) const SMALL: &str = concat!(
    "MIGfMA0GCSqGSIb3DQEBAQUAA4GNADCBiQKBgQDHVxkZV5AH95c7HfFaYJebqFtl/EDex4rDFQwQ+fHYzM0cEn5BBReRM1Tf",
    "GOwTWPxjRl/ppAfo40sF8jBAkqFZuevlYgtVxwx/SmzRW+ITWzhn2H0VFH3zmhpr0SlsPKOvbusP6C8JgEdyaf/2+Q0w5PPT",
    "+z8PiDUAKUdFRp+s6QIDAQAB",
);

/// The first key with the exponent 65536.
pub(crate) const EVEN_EXPONENT: &str = concat!(
    "MIIBIjANBgkqhkiG9w0BAQEFAAOCAQ8AMIIBCgKCAQEA2hUWvlbTGBZEq95lSypR8Zmu5tc4xZQF7Qu0ZjnNApVUOq/O8DVj",
    "7e/x4XRb8LhH8FlRkH3/FSTsWJ6ARaYM5pXJsU/bEje1WUVj+F88GtyEbnWxjh6gXBnw/mBznXoe0wSuXtx27uC7x/A5K1/k",
    "Od6RkI9PkifQ0VXXk/yg8gOk+xGtI6xkA4NF7MKmiv54qfyjG1HrVS6Iu4k9CpZz5dQKvi61Dit288R422XTIEmUk6OlZOE3",
    "e6ifd0+430Gdst9VbinlxGxE54tGrosLExJePzP8aKm7PPlax5FmczVildK33ufxfcqUhebqZeFZU9p5RXR3hfg8LcK3klPB",
    "5QIDAQAA",
);

/// No RSA key at all.
pub(crate) const ELLIPTIC: &str = concat!(
    "MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEnmrSoQr0TdXZHUmfJ2iXzUxL8u1mjVET3X9KZPJ1V86/oUs5goRqmvOUvwVw",
    "eWiBKkHbJsbEQ82UtLgD9GxNbA==",
);

/// Hex SHA-256 of the DER in [`SPKI`].
pub(crate) const FINGERPRINT: &str = "4526dc6cbb44f74c97fed4f09c7a5a81d38158c956962a3ef8fba43d6119ecd6";

/// Hex SHA-256 of the DER in [`OTHER_SPKI`].
pub(crate) const OTHER_FINGERPRINT: &str = "13b4363f494c45c5e60c794811faacf8bb01d7b04d53569d6f58d8a3a8be6843";

/// PEM of [`SPKI`].
pub(crate) const SPKI_PEM: &str = "\
-----BEGIN PUBLIC KEY-----\n\
MIIBIjANBgkqhkiG9w0BAQEFAAOCAQ8AMIIBCgKCAQEA2hUWvlbTGBZEq95lSypR\n\
8Zmu5tc4xZQF7Qu0ZjnNApVUOq/O8DVj7e/x4XRb8LhH8FlRkH3/FSTsWJ6ARaYM\n\
5pXJsU/bEje1WUVj+F88GtyEbnWxjh6gXBnw/mBznXoe0wSuXtx27uC7x/A5K1/k\n\
Od6RkI9PkifQ0VXXk/yg8gOk+xGtI6xkA4NF7MKmiv54qfyjG1HrVS6Iu4k9CpZz\n\
5dQKvi61Dit288R422XTIEmUk6OlZOE3e6ifd0+430Gdst9VbinlxGxE54tGrosL\n\
ExJePzP8aKm7PPlax5FmczVildK33ufxfcqUhebqZeFZU9p5RXR3hfg8LcK3klPB\n\
5QIDAQAB\n\
-----END PUBLIC KEY-----\n\
";

/// PEM of [`PKCS1`].
pub(crate) const PKCS1_PEM: &str = "\
-----BEGIN RSA PUBLIC KEY-----\n\
MIIBCgKCAQEA2hUWvlbTGBZEq95lSypR8Zmu5tc4xZQF7Qu0ZjnNApVUOq/O8DVj\n\
7e/x4XRb8LhH8FlRkH3/FSTsWJ6ARaYM5pXJsU/bEje1WUVj+F88GtyEbnWxjh6g\n\
XBnw/mBznXoe0wSuXtx27uC7x/A5K1/kOd6RkI9PkifQ0VXXk/yg8gOk+xGtI6xk\n\
A4NF7MKmiv54qfyjG1HrVS6Iu4k9CpZz5dQKvi61Dit288R422XTIEmUk6OlZOE3\n\
e6ifd0+430Gdst9VbinlxGxE54tGrosLExJePzP8aKm7PPlax5FmczVildK33ufx\n\
fcqUhebqZeFZU9p5RXR3hfg8LcK3klPB5QIDAQAB\n\
-----END RSA PUBLIC KEY-----\n\
";
