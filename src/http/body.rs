//! Bodies of requests: bounded, read as JSON, and refused with the field's name and never its value.

use actix_web::dev::Payload;
use actix_web::error::PayloadError;
use actix_web::{FromRequest, HttpRequest, web};
use bytes::Bytes;
use futures_util::future::{FutureExt, LocalBoxFuture};
use serde::de::DeserializeOwned;

use super::error::HttpError;
use crate::protocol::{ErrorCode, Refusal};

/// A body as it came; its size is bounded by the `PayloadConfig` of the routes.
pub(super) struct Body(Bytes);

impl FromRequest for Body {
    type Error = HttpError;
    type Future = LocalBoxFuture<'static, Result<Self, HttpError>>;

    fn from_request(request: &HttpRequest, payload: &mut Payload) -> Self::Future {
        let bytes = web::Bytes::from_request(request, payload);
        async move { bytes.await.map(Self).map_err(|error| unreadable(&error)) }.boxed_local()
    }
}

fn unreadable(error: &actix_web::Error) -> HttpError {
    let refusal = match error.as_error::<PayloadError>() {
        Some(PayloadError::Overflow) => Refusal::new(ErrorCode::TooLarge, "body: larger than the server takes"),
        _ => Refusal::invalid("body", "it did not come whole"),
    };
    HttpError(refusal)
}

impl Body {
    /// Reads it as a JSON object all of whose fields are strings.
    pub(super) fn read<T: DeserializeOwned>(&self) -> Result<T, HttpError> {
        let mut json = serde_json::Deserializer::from_slice(&self.0);
        let value = serde_path_to_error::deserialize(&mut json).map_err(|error| explain(&error))?;
        json.end()
            .map_err(|_| HttpError(Refusal::invalid("body", "expected one JSON object and nothing behind it")))?;
        Ok(value)
    }
}

/// Says which field is wrong. Its messages hold our own field names and nothing of what came in.
fn explain(error: &serde_path_to_error::Error<serde_json::Error>) -> HttpError {
    let message = error.inner().to_string();
    let quoted = |prefix| message.strip_prefix(prefix)?.split('`').next();
    if let Some(field) = quoted("missing field `") {
        return HttpError(Refusal::invalid(field, "missing, expected a string"));
    }
    if let Some(field) = quoted("duplicate field `") {
        return HttpError(Refusal::invalid(field, "given twice, expected one string"));
    }
    let field = match error.path().iter().next() {
        Some(serde_path_to_error::Segment::Map { key }) if error.inner().is_data() => key,
        _ => return HttpError(Refusal::invalid("body", "expected a JSON object")),
    };
    HttpError(Refusal::invalid(field, "expected a string"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::accounts::{LoginRequest, RegisterRequest};

    fn refusal<T: DeserializeOwned>(body: &'static str) -> String {
        Body(Bytes::from_static(body.as_bytes())).read::<T>().err().unwrap().0.message.into_owned()
    }

    #[test]
    fn what_is_wrong_is_named_and_never_repeated() {
        let cases = [
            ("", "body: expected a JSON object"),
            ("not json", "body: expected a JSON object"),
            ("[]", "body: expected a JSON object"),
            ("\"hunter2hunter2\"", "body: expected a JSON object"),
            ("{}", "name: missing, expected a string"),
            (r#"{"name":"ann"}"#, "password: missing, expected a string"),
            (r#"{"name":"ann","password":12345678901}"#, "password: expected a string"),
            (r#"{"name":["ann"],"password":"hunter2hunter2"}"#, "name: expected a string"),
            (r#"{"name":null,"password":"hunter2hunter2"}"#, "name: expected a string"),
            (r#"{"name":"a","name":"b","password":"hunter2hunter2"}"#, "name: given twice, expected one string"),
            (r#"{"name":"ann","password":"hunter2hunter2""#, "body: expected a JSON object"),
            (r#"{"name":"ann","password":"hunter2hunter2"} x"#, "body: expected one JSON object and nothing behind it"),
        ];
        for (body, expected) in cases {
            assert_eq!(refusal::<LoginRequest>(body), expected, "{body}");
        }
    }

    #[test]
    fn unknown_fields_are_ignored_and_null_counts_as_left_out() {
        let body = r#"{"name":"ann","password":"p","public_key":"k","display_name":null,"later":{"a":[1]}}"#;
        let request: RegisterRequest = Body(Bytes::from_static(body.as_bytes())).read().unwrap();
        assert_eq!(request.display_name, None);
        assert_eq!(request.name, "ann");
    }
}
