//! Prints the PeerNetwork CustomResourceDefinition as YAML.

use std::io::Write;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    std::io::stdout().write_all(peernet_api::v1alpha1::crd_yaml()?.as_bytes())?;
    Ok(())
}
