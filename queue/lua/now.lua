-- now answers Redis's time in ms.
return now_ms()
