//! Forms of well-known secrets, as their issuers document them or scan for them.
//!
//! Crates with such rules use a regular expression for each, search one whole text at a time and nothing encoded.
//! Transcripts are streams of any length, so the rules here are literal prefixes, which cost one table look-up a byte.

/// The characters that the rest of a secret consists of.
#[derive(Clone, Copy, Debug)]
pub(super) enum Alphabet {
    /// Letters and digits.
    Alnum,
    /// Capital letters and digits.
    Upper,
    /// Hexadecimal digits.
    Hex,
    /// Letters, digits, `_` and `-`.
    Word,
    /// Those of `Word`, and `.`.
    Dotted,
    /// Those of `Dotted`, and `+`, `/`, `=`, `%` and `~`.
    Base64,
}

impl Alphabet {
    pub(super) fn holds(self, byte: u8) -> bool {
        match self {
            Self::Alnum => byte.is_ascii_alphanumeric(),
            Self::Upper => byte.is_ascii_uppercase() || byte.is_ascii_digit(),
            Self::Hex => byte.is_ascii_hexdigit(),
            Self::Word => byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-'),
            Self::Dotted => byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.'),
            Self::Base64 => {
                byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.' | b'+' | b'/' | b'=' | b'%' | b'~')
            }
        }
    }
}

/// A secret's prefix, the alphabet of its rest, and the least length of its rest.
#[derive(Clone, Copy)]
pub(super) struct Shape(pub(super) &'static str, pub(super) Alphabet, pub(super) usize);

use Alphabet::{Alnum, Base64, Dotted, Hex, Upper, Word};

/// The table of secrets. The lengths are the issuers' or shorter, so that a new generation of keys is found as well.
#[rustfmt::skip]
pub(super) const SHAPES: &[Shape] = &[
    // platform.claude.com/docs/en/api/overview; gitleaks: anthropic-api-key, anthropic-admin-api-key
    Shape("sk-ant-", Word, 12),
    // platform.openai.com/docs/api-reference/authentication; gitleaks: openai-api-key
    Shape("sk-proj-", Word, 12), Shape("sk-svcacct-", Word, 12), Shape("sk-admin-", Word, 20), Shape("sk-None-", Word, 20),
    // OpenAI's first keys, and many services that use the same form (DeepSeek, Moonshot, LiteLLM)
    Shape("sk-", Alnum, 32),
    // openrouter.ai/docs/api-reference/authentication
    Shape("sk-or-", Word, 12),
    // docs.x.ai/docs/api-reference; GitHub secret scanning: xai_api_key
    Shape("xai-", Alnum, 40),
    // console.groq.com/docs/quickstart; GitHub secret scanning: groq_api_key
    Shape("gsk_", Alnum, 40),
    // huggingface.co/docs/hub/security-tokens; gitleaks: huggingface-access-token
    Shape("hf_", Alnum, 30), Shape("api_org_", Alnum, 30),
    // docs.perplexity.ai; gitleaks: perplexity-api-key
    Shape("pplx-", Alnum, 40),
    // replicate.com/docs/topics/security/api-tokens
    Shape("r8_", Alnum, 36),
    // GitHub secret scanning's patterns of model services: NVIDIA, Cerebras, Together, Fireworks, LangSmith, Tavily, Cursor, E2B
    Shape("nvapi-", Word, 40), Shape("csk-", Alnum, 40), Shape("tgp_v1_", Word, 30), Shape("fw_", Alnum, 20),
    Shape("lsv2_pt_", Word, 30), Shape("lsv2_sk_", Word, 30), Shape("tvly-", Word, 24), Shape("crsr_", Alnum, 40), Shape("e2b_", Hex, 40),
    // elevenlabs.io/docs/api-reference/authentication
    Shape("sk_", Hex, 48),
    // cloud.google.com/docs/authentication/api-keys, …/token-types; gitleaks: gcp-api-key
    Shape("AIza", Word, 30), Shape("AQ.Ab", Word, 30), Shape("GOCSPX-", Word, 24), Shape("ya29.", Dotted, 30),
    // docs.aws.amazon.com/IAM/latest/UserGuide/reference_identifiers.html (AKIA, ASIA, ABIA, ACCA); Bedrock: gitleaks
    Shape("AKIA", Upper, 16), Shape("ASIA", Upper, 16), Shape("ABIA", Upper, 16), Shape("ACCA", Upper, 16),
    Shape("ABSK", Base64, 100), Shape("bedrock-api-key-", Base64, 40),
    // alibabacloud.com/help/en/ram; gitleaks: alibaba-access-key-id
    Shape("LTAI", Alnum, 16),
    // docs.github.com/authentication/keeping-your-account-and-data-secure/about-authentication-to-github
    Shape("ghp_", Alnum, 12), Shape("gho_", Alnum, 12), Shape("ghu_", Alnum, 12), Shape("ghs_", Dotted, 12),
    Shape("ghr_", Alnum, 12), Shape("github_pat_", Word, 12),
    // docs.gitlab.com/security/tokens/#token-prefixes
    Shape("glpat-", Dotted, 12), Shape("gldt-", Word, 20), Shape("glrt-", Dotted, 20), Shape("glcbt-", Word, 20), Shape("glptt-", Word, 20),
    Shape("glft-", Word, 20), Shape("gloas-", Word, 20), Shape("glagent-", Word, 20), Shape("glimt-", Word, 20), Shape("glsoat-", Word, 20),
    // developer.atlassian.com/cloud; gitleaks: atlassian-api-token
    Shape("ATATT3", Base64, 60), Shape("ATCTT3", Base64, 60), Shape("ATBB", Alnum, 28),
    // docs.slack.dev/authentication/tokens; incoming webhooks
    Shape("xoxb-", Word, 12), Shape("xoxp-", Word, 12), Shape("xoxa-", Word, 12), Shape("xoxr-", Word, 12), Shape("xoxs-", Word, 12),
    Shape("xoxe-", Word, 12), Shape("xoxe.", Dotted, 20), Shape("xapp-", Word, 12), Shape("hooks.slack.com/services/", Base64, 20),
    // discord.com/developers/docs/resources/webhook
    Shape("discord.com/api/webhooks/", Base64, 40),
    // docs.npmjs.com/about-access-tokens; pypi.org/help/#apitoken; guides.rubygems.org; crates.io; learn.microsoft.com/nuget
    Shape("npm_", Alnum, 36), Shape("pypi-AgE", Word, 40), Shape("rubygems_", Hex, 48), Shape("cio", Alnum, 32), Shape("oy2", Alnum, 43),
    // docs.docker.com/security/access-tokens
    Shape("dckr_pat_", Word, 20), Shape("dckr_oat_", Word, 20),
    // docs.stripe.com/keys; docs.stripe.com/webhooks
    Shape("sk_live_", Alnum, 16), Shape("rk_live_", Alnum, 16), Shape("sk_test_", Alnum, 16), Shape("rk_test_", Alnum, 16), Shape("whsec_", Base64, 24),
    // developer.squareup.com; shopify.dev/docs/apps/build/authentication-authorization
    Shape("sq0atp-", Word, 22), Shape("sq0csp-", Word, 22),
    Shape("shpat_", Hex, 32), Shape("shpca_", Hex, 32), Shape("shppa_", Hex, 32), Shape("shpss_", Hex, 32),
    // twilio.com/docs/sendgrid/for-developers/sending-email/api-getting-started
    Shape("SG.", Dotted, 60),
    // docs.digitalocean.com/reference/api; gitleaks: digitalocean-*
    Shape("dop_v1_", Hex, 64), Shape("doo_v1_", Hex, 64), Shape("dor_v1_", Hex, 64),
    // learn.microsoft.com/azure/storage/common/storage-sas-overview
    Shape("?sig=", Base64, 40), Shape("&sig=", Base64, 40),
    // developer.hashicorp.com/vault/docs/concepts/tokens
    Shape("hvs.", Word, 24), Shape("hvb.", Word, 24), Shape("hvr.", Word, 24),
    // docs.databricks.com/dev-tools/auth/pat
    Shape("dapi", Hex, 32),
    // fly.io, netlify.com, pulumi.com, doppler.com, supabase.com, render.com: GitHub secret scanning
    Shape("fm2_", Base64, 60), Shape("fo1_", Word, 40), Shape("nfp_", Alnum, 36), Shape("pul-", Hex, 40),
    Shape("dp.pt.", Alnum, 40), Shape("dp.st.", Dotted, 40), Shape("sbp_", Hex, 40), Shape("sb_secret_", Word, 20), Shape("rnd_", Alnum, 28),
    // grafana.com, sentry.io, newrelic.com, posthog.com: gitleaks
    Shape("glsa_", Word, 32), Shape("glc_", Base64, 32), Shape("sntrys_", Base64, 50), Shape("sntryu_", Hex, 64), Shape("NRAK-", Upper, 27), Shape("phx_", Alnum, 40),
    // linear.app, developers.notion.com, postman.com, figma.com, contentful.com: gitleaks
    Shape("lin_api_", Alnum, 40), Shape("ntn_", Alnum, 40), Shape("secret_", Alnum, 43), Shape("PMAK-", Word, 50), Shape("figd_", Word, 40), Shape("CFPAT-", Word, 40),
    // age-encryption.org/v1; developer.1password.com/docs/service-accounts
    Shape("AGE-SECRET-KEY-1", Upper, 50), Shape("ops_eyJ", Base64, 100),
];
