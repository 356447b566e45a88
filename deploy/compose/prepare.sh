# What compose.yaml's service "prepare" runs: the token and the key are made here and at no other place, so that there are none in the
# repository and everybody has their own. The volume is gone with "docker compose down --volumes".
set -eu
cd "${1:-/etc/postroom}"
umask 077

if [ ! -s token ]; then
	/postroom token new --name try --role admin >token.new 2>words
	sed -n '/^auth:/,$p' words >auth.yaml
	rm words
	mv token.new token
fi
if [ ! -s seal-keys ]; then
	/postroom key new >seal-keys.new 2>/dev/null
	mv seal-keys.new seal-keys
fi
cat /postroom.yaml auth.yaml >postroom.yaml
# Postroom's user in the image.
chown 65532:65532 token seal-keys postroom.yaml
