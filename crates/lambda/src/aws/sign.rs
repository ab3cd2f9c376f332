//! Signature version 4: of a request to an API, and of an address that another signs in with for us.

use std::time::{Duration, SystemTime};

use aws_credential_types::Credentials;
use aws_sigv4::{
    http_request::{self, SignableBody, SignableRequest, SignatureLocation, SigningInstructions, SigningSettings},
    sign::v4,
};
use http::{HeaderName, HeaderValue, Method};
use jiff::Timestamp;

use super::region::Region;
use crate::{http_client::Call, trouble::Trouble};

/// What is signed.
#[derive(Debug, Clone, Copy)]
pub struct Signed<'a> {
    /// With these.
    pub credentials: &'a Credentials,
    /// For a service of this region,
    pub region: &'a Region,
    /// of this name,
    pub service: &'a str,
    /// at this time.
    pub now: Timestamp,
}

impl Signed<'_> {
    /// Adds the headers that sign a call to this authority.
    pub fn call(&self, call: &mut Call, authority: &str) -> Result<(), Trouble> {
        let address = format!("https://{authority}{}", call.path);
        let headers = call.headers.iter().filter_map(|(name, value)| Some((name.as_str(), value.to_str().ok()?)));
        let body = SignableBody::Bytes(&call.body);
        let request =
            SignableRequest::new(call.method.as_str(), address, headers, body).map_err(|error| cannot(&error))?;
        let (headers, _) = self.instructions(request, SigningSettings::default())?.into_parts();
        for header in headers {
            let mut value = HeaderValue::try_from(header.value())
                .map_err(|_| Trouble::Unusable("the credentials have characters that cannot be sent".to_owned()))?;
            value.set_sensitive(true);
            call.headers.push((HeaderName::from_static(header.name()), value));
        }
        Ok(())
    }

    /// An address that whoever calls it with this one header calls in our name, for as long as given.
    pub fn address(&self, address: &str, header: (&str, &str), expires_in: Duration) -> Result<String, Trouble> {
        let mut settings = SigningSettings::default();
        settings.signature_location = SignatureLocation::QueryParams;
        settings.expires_in = Some(expires_in);
        let body = SignableBody::Bytes(&[]);
        let request = SignableRequest::new(Method::GET.as_str(), address, std::iter::once(header), body);
        let (_, parameters) = self.instructions(request.map_err(|error| cannot(&error))?, settings)?.into_parts();
        // They come as they are. A session token has `+`, `/` and `=` in it, which mean something else in an address.
        Ok(parameters.iter().fold(address.to_owned(), |address, (name, value)| {
            let separator = if address.contains('?') { '&' } else { '?' };
            format!("{address}{separator}{name}={}", encoded(value))
        }))
    }

    fn instructions(
        &self,
        request: SignableRequest<'_>,
        settings: SigningSettings,
    ) -> Result<SigningInstructions, Trouble> {
        let identity = self.credentials.clone().into();
        let parameters = v4::SigningParams::builder()
            .identity(&identity)
            .region(self.region.name())
            .name(self.service)
            .time(SystemTime::from(self.now))
            .settings(settings)
            .build()
            .map_err(|error| cannot(&error))?;
        let output = http_request::sign(request, &parameters.into()).map_err(|error| cannot(&error))?;
        Ok(output.into_parts().0)
    }
}

/// As RFC 3986 has it: everything but letters, digits and `-._~`.
pub fn encoded(text: &str) -> String {
    const KEPT: &percent_encoding::AsciiSet =
        &percent_encoding::NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');
    percent_encoding::utf8_percent_encode(text, KEPT).to_string()
}

fn cannot(error: &dyn std::error::Error) -> Trouble {
    Trouble::Unusable(format!("the request cannot be signed: {error}"))
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use http::header;

    use super::*;

    #[test]
    fn a_call_is_signed_as_botocore_signs_it() {
        let secret = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY";
        let credentials = Credentials::new("AKIDEXAMPLE", secret, Some("IQoJ+/==".to_owned()), None, "test");
        let region = Region::parse("eu-west-1").unwrap();
        let now = "2026-01-31T12:00:00Z".parse().unwrap();
        let form = HeaderValue::from_static("application/x-www-form-urlencoded; charset=utf-8");
        let mut call = Call {
            method: Method::POST,
            path: "/".to_owned(),
            headers: vec![(header::CONTENT_TYPE, form)],
            body: Bytes::from_static(b"Action=AssumeRole&Version=2011-06-15"),
        };
        let signed = Signed { credentials: &credentials, region: &region, service: "sts", now };
        signed.call(&mut call, "sts.eu-west-1.amazonaws.com").unwrap();
        let authorization = call.headers.iter().find(|(name, _)| *name == header::AUTHORIZATION).unwrap();
        assert!(authorization.1.is_sensitive());
        assert_eq!(
            authorization.1.to_str().unwrap(),
            "AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20260131/eu-west-1/sts/aws4_request, \
             SignedHeaders=content-type;host;x-amz-date;x-amz-security-token, \
             Signature=466ca4783e5b44f9ee1c3a036e2ce715630cbd1320b74ae8bace047e4a3fda42"
        );
    }
}
