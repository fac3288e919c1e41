//! Buckets: S3, GCS, and what speaks their languages. Credentials come from the environment, and stay here: others get
//! addresses that are signed for a while.

use std::sync::Arc;
use std::time::Duration;

use http::Method;
use object_store::aws::AmazonS3Builder;
use object_store::gcp::GoogleCloudStorageBuilder;
use object_store::path::Path as Key;
use object_store::signer::Signer;
use object_store::{ObjectStore, ObjectStoreScheme};
use url::Url;

/// How long a signed address may be used to begin a download; one that has begun goes on.
const SIGNED_FOR: Duration = Duration::from_secs(15 * 60);

#[derive(Debug, thiserror::Error)]
pub enum BucketError {
    #[error("it is no URL: {0}")]
    Url(#[from] url::ParseError),
    #[error("only s3:// and gs:// are known, with a bucket")]
    Scheme,
    #[error("{0}")]
    Store(#[from] object_store::Error),
}

/// A bucket, and the key in it that a URL names: an object, or the prefix of many.
pub struct Bucket {
    pub store: Arc<dyn ObjectStore>,
    pub key: Key,
    signer: Arc<dyn Signer>,
}

impl Bucket {
    /// The bucket of a URL such as `s3://bucket/key` or `gs://bucket/key`, with the credentials that the environment
    /// holds (`AWS_*`, `GOOGLE_*`), or that the cloud gives to its machines and service accounts.
    ///
    /// # Errors
    /// If the URL names no bucket, or the environment lacks what it needs.
    pub fn at(url: &str) -> Result<Self, BucketError> {
        let (scheme, key) = ObjectStoreScheme::parse(&url.parse::<Url>()?).map_err(|_| BucketError::Scheme)?;
        match scheme {
            ObjectStoreScheme::AmazonS3 => {
                let store = Arc::new(AmazonS3Builder::from_env().with_url(url).build()?);
                Ok(Self { store: store.clone(), key, signer: store })
            }
            ObjectStoreScheme::GoogleCloudStorage => {
                let store = Arc::new(GoogleCloudStorageBuilder::from_env().with_url(url).build()?);
                Ok(Self { store: store.clone(), key, signer: store })
            }
            _ => Err(BucketError::Scheme),
        }
    }

    /// An address at which anyone may read what lies under `key` (which is relative to this bucket's), for
    /// 15 minutes.
    ///
    /// # Errors
    /// If the credentials cannot sign.
    pub async fn signed(&self, key: &Key) -> Result<Url, BucketError> {
        let whole = self.key.parts().chain(key.parts()).collect();
        Ok(self.signer.signed_url(Method::GET, &whole, SIGNED_FOR).await?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_names_no_bucket_is_refused_in_words() {
        let said = |url: &str| Bucket::at(url).err().unwrap().to_string();
        assert_eq!(said("s3//models"), "it is no URL: relative URL without a base");
        for url in ["ftp://models/x", "file:///models", "https://models/x", "s3:models"] {
            assert_eq!(said(url), "only s3:// and gs:// are known, with a bucket", "{url}");
        }
    }
}
